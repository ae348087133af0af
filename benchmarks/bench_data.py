"""The generated data that the systems load: files, feeds, and a table of a Postgres server."""

import atexit
import json
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg2

from shared.testing.postgres_server import PostgresServer

HERE = Path(__file__).parent
DATA = HERE / "data"
ITEMS_SQL = """
    COPY (
        SELECT i AS id,
            DATE '2015-01-01' + (hash(i) % 4000)::INTEGER AS day,
            'C' || lpad((hash(i * 7) % 100000)::VARCHAR, 6, '0') AS code,
            ((hash(i * 3) % 10000000) / 100)::DECIMAL(18, 2) AS price,
            hash(i * 5) % 1000 AS pieces,
            'item number ' || (hash(i * 11) % 1000000) || ' of the list' AS note
        FROM range({rows}) AS numbers(i)
    ) TO '{file}' ({options})
"""
ITEMS_OPTIONS = {"csv": "HEADER", "jsonl": "FORMAT JSON", "parquet": "FORMAT PARQUET"}
RECORDED = (
    HERE.parent / "projects/api_etl/src/api_etl/recorded/days/feed_2025-03-10_2025-03-17.json"
)
ORDERS_SQL = """
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, amount numeric(10, 2), at_time timestamptz, paid bool);
    INSERT INTO orders
        SELECT i, 'order number ' || (i * 7919) % 1000003 || ' of the shop', (i * 31) % 10000000 / 100.0,
            timestamptz '2020-01-01 00:00Z' + i * interval '1 second', i % 3 = 0
        FROM generate_series(1::bigint, {rows}) AS numbers(i)
"""
_servers: list[Any] = []


def items(rows: int, kind: str) -> Path:
    """Return a file of this kind with this number of rows."""
    file = DATA / f"items_{rows}.{kind}"
    if not file.exists():
        duckdb.sql(ITEMS_SQL.format(rows=rows, file=file, options=ITEMS_OPTIONS[kind]))
    return file


def feeds(objects: int) -> Path:
    """Return a folder of eight-day feeds with this number of objects, built from a recorded feed."""
    folder = DATA / f"feeds_{objects}"
    if folder.exists():
        return folder
    folder.mkdir()
    recorded = json.loads(RECORDED.read_text())["near_earth_objects"]
    objects_to_copy = [item for day in sorted(recorded) for item in recorded[day]]
    per_day = 125
    for window in range(objects // (8 * per_day)):
        first = date(2000, 1, 1) + timedelta(days=8 * window)
        days = {}
        for n in range(8):
            day = (first + timedelta(days=n)).isoformat()
            days[day] = [
                dict(objects_to_copy[(n * per_day + m) % len(objects_to_copy)])
                for m in range(per_day)
            ]
            for item in days[day]:
                (approach,) = item["close_approach_data"]
                item["close_approach_data"] = [{**approach, "close_approach_date": day}]
        feed = {"element_count": 8 * per_day, "near_earth_objects": days}
        (folder / f"{first}.json").write_text(json.dumps(feed))
    return folder


def database(rows: int) -> str:
    """Return the URL of a Postgres database with a table `orders`; its server stops with this program."""
    if not _servers:
        folder = DATA / "postgres"
        folder.mkdir(exist_ok=True)
        _servers.append(PostgresServer(folder).__enter__())
        atexit.register(_servers[0].stop)
    address = f"postgresql://postgres:postgres@127.0.0.1:{_servers[0].port}"
    name = f"shop_{rows}"
    with closing(psycopg2.connect(f"{address}/postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone():
                return f"{address}/{name}"
            cursor.execute(f"CREATE DATABASE {name}")
    with closing(psycopg2.connect(f"{address}/{name}")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(ORDERS_SQL.format(rows=rows))
            cursor.execute("VACUUM ANALYZE orders")
    return f"{address}/{name}"
