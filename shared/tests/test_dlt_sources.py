"""The examples of shared/README.md load with dlt's own sources, and a rerun leaves the same rows."""

import importlib
import json
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from shared import warehouse
from shared.orchestration.definitions import build_definitions

README = (Path(__file__).parents[1] / "README.md").read_text()
ORDERS = [
    {"id": 1, "price": 1.5, "updated_at": "2025-03-10T10:00:00Z"},
    {"id": 2, "price": 2.5, "updated_at": "2025-03-11T10:00:00Z"},
]


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


VIEWS = [
    {"id": 1, "seen_at": "2025-03-10T00:00:00+00:00"},
    {"id": 2, "seen_at": "2025-03-10T23:59:59+00:00"},
    {"id": 3, "seen_at": "2025-03-11T00:00:00+00:00"},
]


class Shop:
    """An API whose orders can be filtered by the time of their last change, and its views by their time.

    Attributes:
        orders: what it has.
        views: what it has, too.
        requests: the requested paths.
    """

    def __init__(self) -> None:
        self.orders = list(ORDERS)
        self.views = list(VIEWS)
        self.requests: list[str] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.requests.append(self.path)
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                found = [
                    view
                    for view in shop.views
                    if url.path == "/views"
                    if query["from"] <= str(view["seen_at"]) < query["before"]
                ] + [
                    order
                    for order in shop.orders
                    if url.path == "/orders" and str(order["updated_at"]) >= query["since"]
                    if self.headers["Authorization"] == "Bearer key-of-the-shop"
                ]
                body = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    api = Shop()
    threading.Thread(target=api.server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("SOURCES__SHOP_API__BASE_URL", api.url)
    monkeypatch.setenv("SOURCES__VIEWS_API__BASE_URL", api.url)
    monkeypatch.setenv("SOURCES__SHOP_API__TOKEN", "key-of-the-shop")
    yield api
    api.server.shutdown()
    api.server.server_close()


@pytest.fixture
def crm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """A database of another team."""
    monkeypatch.setenv("SOURCES__SQL_DATABASE__CREDENTIALS", f"sqlite:///{tmp_path / 'crm.db'}")
    with sqlite3.connect(tmp_path / "crm.db") as connection:
        connection.executescript(
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, page TEXT);"
            "CREATE TABLE Countries (code TEXT, name TEXT);"
            "CREATE TABLE sales (id INTEGER PRIMARY KEY, sold_at TIMESTAMP);"
            "INSERT INTO visits VALUES (1, 'a'), (2, 'b');"
            # SQLite compares texts, and SQLAlchemy writes a time with microseconds.
            "INSERT INTO sales VALUES (1, '2025-03-10 00:00:00.000000'),"
            " (2, '2025-03-11 00:00:00.000000');"
            "INSERT INTO Countries VALUES ('de', 'Germany');"
        )
        yield connection
    connection.close()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.csv").write_text('id,note\n1,x\n2,"two\nlines"\n')
    (folder / "b.csv").write_text("id,note\n3,y\n")
    (folder / "a.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    pq.write_table(pa.table({"id": [1, 2], "name": ["a", "b"]}), folder / "a.parquet")
    monkeypatch.setenv("SOURCES__FILESYSTEM__BUCKET_URL", folder.as_uri())
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A location with the sources of the README, and one `defs.yaml` of the README for each."""
    folder = tmp_path / "shop_etl"
    python, (unpartitioned, by_day) = examples("python"), examples("yaml")
    (folder / "defs").mkdir(parents=True)
    for path in (folder, folder / "defs"):
        (path / "__init__.py").touch()
    (folder / "source.py").write_text("\n\n".join(python))
    for name in re.findall(r"^def (\w+)", "\n".join(python), re.MULTILINE):
        (folder / "defs" / name).mkdir()
        attributes = yaml.safe_load(by_day if name in ("views_api", "sales") else unpartitioned)
        attributes["attributes"]["source"] = f"shop_etl.source.{name}"
        if name != "crm":
            attributes["attributes"].pop("checks", None)
        (folder / "defs" / name / "defs.yaml").write_text(yaml.safe_dump(attributes))
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "shop_etl"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    return "shop_etl"


def run(defs: dg.Definitions, instance: dg.DagsterInstance, *days: str) -> dict[str, int]:
    """Materialize the assets by day, or the others, and return the rows of the tables."""
    graph = defs.resolve_asset_graph()
    selected = [
        key
        for key in graph.materializable_asset_keys
        if (graph.get(key).partitions_def is not None) == bool(days)
    ]
    tags = {"dagster/asset_partition_range_start": days[0]} if days else {}
    if days:
        tags["dagster/asset_partition_range_end"] = days[-1]
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=selected, tags=tags
    )
    assert all(check.passed for check in result.get_asset_check_evaluations())
    return {table.name: table.rows for table in warehouse.list_tables()}


def test_the_examples_are_short() -> None:
    assert len(examples("python")) == 5
    for block in examples("python"):
        assert len([line for line in block.splitlines() if line]) <= 12, block


# dlt itself uses what DuckDB and dlt deprecate.
@pytest.mark.filterwarnings("ignore:fetch_arrow_reader", "ignore:`detect_precision_hints`")
def test_the_sources_of_the_readme_load_and_a_rerun_adds_only_what_is_new(
    package: str,
    shop: Shop,
    crm: sqlite3.Connection,
    files: Path,
    tmp_warehouse: Path,
    instance: dg.DagsterInstance,
) -> None:
    defs = build_definitions(package)
    rows = {"orders": 2, "visits": 2, "countries": 1, "prices": 3, "logs": 2, "items": 2}
    assert run(defs, instance) == rows

    shop.orders[1] = {**ORDERS[1], "price": 9.5, "updated_at": "2025-03-12T10:00:00Z"}
    crm.executescript(
        "INSERT INTO visits VALUES (3, 'c'); INSERT INTO Countries VALUES ('fr', 'F')"
    )
    (files / "b.csv").unlink()
    pq.write_table(pa.table({"id": [2, 3], "name": ["B", "c"]}), files / "a.parquet")
    changed = {**rows, "visits": 3, "countries": 2, "prices": 2, "items": 3}
    assert run(defs, instance) == changed
    assert "since=2025-03-11T10" in shop.requests[-1]
    assert warehouse.query("SELECT price FROM shop.orders ORDER BY id") == [
        {"price": 1.5},
        {"price": 9.5},
    ]
    assert warehouse.query("SELECT name FROM shop.items ORDER BY id") == [
        {"name": "a"},
        {"name": "B"},
        {"name": "c"},
    ]


@pytest.mark.filterwarnings("ignore:`detect_precision_hints`")
def test_the_partitioned_sources_of_the_readme_replace_their_days(
    package: str,
    shop: Shop,
    crm: sqlite3.Connection,
    tmp_warehouse: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "SOURCES__FILESYSTEM__BUCKET_URL", tmp_warehouse.as_uri()
    )  # of the other sources
    defs = build_definitions(package)
    assert run(defs, instance, "2025-03-11") == {"views": 1, "sales": 1}
    assert run(defs, instance, "2025-03-10", "2025-03-11") == {"views": 3, "sales": 2}

    shop.views = VIEWS[2:]
    crm.execute("DELETE FROM sales WHERE id = 1")
    crm.commit()
    assert run(defs, instance, "2025-03-10") == {"views": 1, "sales": 1}
    assert warehouse.query("SELECT id FROM shop.views") == [{"id": 3}]
    assert warehouse.query("SELECT id FROM shop.sales") == [{"id": 2}]
