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


class Shop:
    """An API whose orders can be filtered by the time of their last change.

    Attributes:
        orders: what it has.
        requests: the paths that it was asked for.
    """

    def __init__(self) -> None:
        self.orders = list(ORDERS)
        self.requests: list[str] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.requests.append(self.path)
                allowed = self.headers["Authorization"] == "Bearer key-of-the-shop"
                (since,) = parse_qs(urlsplit(self.path).query)["since"]
                found = [order for order in shop.orders if str(order["updated_at"]) >= since]
                body = json.dumps(found).encode()
                self.send_response(200 if allowed else 401)
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
            "INSERT INTO visits VALUES (1, 'a'), (2, 'b');"
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
    python, (declared,) = examples("python"), examples("yaml")
    (folder / "defs").mkdir(parents=True)
    for path in (folder, folder / "defs"):
        (path / "__init__.py").touch()
    (folder / "source.py").write_text("\n\n".join(python))
    for name in re.findall(r"^def (\w+)", "\n".join(python), re.MULTILINE):
        (folder / "defs" / name).mkdir()
        attributes = yaml.safe_load(declared)
        attributes["attributes"]["source"] = f"shop_etl.source.{name}"
        if name != "crm":
            del attributes["attributes"]["checks"]
        (folder / "defs" / name / "defs.yaml").write_text(yaml.safe_dump(attributes))
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "shop_etl"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    return "shop_etl"


def run(package: str, instance: dg.DagsterInstance) -> dict[str, int]:
    """Materialize every asset in one run each, and return the rows of the tables."""
    job = build_definitions(package).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance)
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    return {table.name: table.rows for table in warehouse.list_tables()}


def test_the_examples_are_short() -> None:
    assert len(examples("python")) == 3
    for block in examples("python"):
        assert len([line for line in block.splitlines() if line]) <= 12, block


# dlt itself uses what DuckDB and dlt deprecate.
@pytest.mark.filterwarnings("ignore:fetch_arrow_reader", "ignore:`detect_precision_hints`")
def test_the_sources_of_the_readme_load_and_a_rerun_leaves_the_same_rows(
    package: str,
    shop: Shop,
    crm: sqlite3.Connection,
    files: Path,
    tmp_warehouse: Path,
    instance: dg.DagsterInstance,
) -> None:
    rows = {"orders": 2, "visits": 2, "countries": 1, "prices": 3, "logs": 2, "items": 2}
    assert run(package, instance) == rows
    assert run(package, instance) == rows
    assert "since=2025-03-11T10" in shop.requests[-1]

    shop.orders[1] = {**ORDERS[1], "price": 9.5, "updated_at": "2025-03-12T10:00:00Z"}
    crm.executescript(
        "INSERT INTO visits VALUES (3, 'c'); INSERT INTO Countries VALUES ('fr', 'F')"
    )
    (files / "b.csv").unlink()
    pq.write_table(pa.table({"id": [2, 3], "name": ["B", "c"]}), files / "a.parquet")
    changed = {**rows, "visits": 3, "countries": 2, "prices": 2, "items": 3}
    assert run(package, instance) == changed
    assert warehouse.query("SELECT price FROM shop.orders ORDER BY id") == [
        {"price": 1.5},
        {"price": 9.5},
    ]
    assert warehouse.query("SELECT name FROM shop.items ORDER BY id") == [
        {"name": "a"},
        {"name": "B"},
        {"name": "c"},
    ]
