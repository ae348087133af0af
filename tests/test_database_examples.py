"""What docs/databases.md shows loads as it says, from the sample database of the repository."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster_dlt import dlt_assets

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.database import database_source
from shared.testing.postgres_server import PostgresServer

Run = Callable[[str], None]

CHANGES = """
UPDATE orders SET status = 'lost', updated_at = '2025-03-12 11:00:00' WHERE order_id = 2;
INSERT INTO orders VALUES (5, 3, '2025-03-12', 'new', '2025-03-12 10:00:00');
DELETE FROM orders WHERE order_id = 1;
UPDATE order_lines SET quantity = 7 WHERE order_id = 3;
DELETE FROM order_lines WHERE order_id = 1;
UPDATE customers SET city = 'Basel' WHERE customer_id = 1;
DELETE FROM customers WHERE customer_id = 3;
"""

CUSTOMERS = "SELECT customer_id, city FROM shop.customers ORDER BY ALL"
ORDERS = "SELECT order_id, status FROM shop.orders ORDER BY ALL"
LINES = "SELECT order_id, line, quantity FROM shop.order_lines ORDER BY ALL"
VERSIONS = "SELECT customer_id, city, _dlt_valid_to IS NULL FROM shop.customers ORDER BY ALL"

SENT = [(1, "sent"), (2, "sent"), (3, "paid"), (4, "new")]
MODES: dict[str, tuple[str, str, list[Any]]] = {
    "full": (CHANGES, CUSTOMERS, [(1, "Basel"), (2, "Genoa")]),
    "incremental": (
        CHANGES,
        ORDERS,
        [(1, "sent"), (2, "lost"), (3, "paid"), (4, "new"), (5, "new")],
    ),
    "append": (CHANGES.split(";")[1], ORDERS, [*SENT, (5, "new")]),
    "mirror": (CHANGES, LINES, [(2, 1, 1), (3, 1, 7), (4, 1, 6), (4, 2, 3)]),
    "history": (
        CHANGES,
        VERSIONS,
        [(1, "Basel", True), (1, "Bern", False), (2, "Genoa", True), (3, None, False)],
    ),
}
"""What changes in the database, and the rows of the warehouse after it, by the section of a mode."""


@pytest.fixture
def run(root: Path, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Create the sample database, and return a function that runs SQL in it."""
    file = tmp_warehouse / "shop.db"

    def execute(script: str) -> None:
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(script)

    execute((root / "data" / "sample" / "shop.sql").read_text())
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", f"sqlite:///{file}")
    return execute


def example(root: Path, heading: str, block: int = 0) -> ModuleType:
    """Return a block of Python below a heading of the page as a module."""
    page = (root / "docs" / "databases.md").read_text()
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    code = re.findall(r"```python.*?\n(.*?)```", section, re.DOTALL)[block]
    module = ModuleType("example")
    exec(code, module.__dict__)
    return module


def load(module: ModuleType) -> warehouse.LoadResult:
    source = database_source(module.TABLES, name="shop")
    return warehouse.load(warehouse.plan_load(warehouse.pipeline("shop_pipeline", "shop"), source))


def rows(query: str) -> list[Any]:
    return [tuple(row.values()) for row in warehouse.query(query)]


@pytest.mark.parametrize("mode", MODES)
def test_a_load_of_each_mode_brings_what_changed_and_a_rerun_nothing(
    root: Path, run: Run, mode: str
) -> None:
    changes, query, expected = MODES[mode]
    module = example(root, mode)
    load(module)
    before = rows(query)
    load(module)
    assert rows(query) == before
    run(changes)
    for _ in range(2):
        load(module)
        assert rows(query) == expected


def test_every_mode_of_the_page_is_tested_and_has_ten_lines(root: Path) -> None:
    page = (root / "docs" / "databases.md").read_text()
    section = page.partition("\n## Modes\n")[2].partition("\n## ")[0]
    others = ["changes", "window"]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [*MODES, *others]
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == [*MODES, *others]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == len(MODES) + 1  # that of a window is a whole asset
    assert max(len(block.splitlines()) for block in blocks) <= 10


def test_a_window_replaces_the_rows_of_its_day(
    root: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    module = example(root, "window")

    def load_day(day: str) -> None:
        assert dg.materialize(
            [module.shop_assets],
            instance=instance,
            partition_key=day,
            resources={"dlt": WarehouseDltResource()},
        ).success

    load_day("2025-03-10")
    load_day("2025-03-12")
    assert rows(ORDERS) == [(1, "sent"), (2, "sent"), (4, "new")]
    run(CHANGES)
    load_day("2025-03-10")
    assert rows(ORDERS) == [(2, "lost"), (4, "new")]


def test_masked_values_are_not_in_the_warehouse(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__SHOP__MASK_KEY", "k" * 32)
    load(example(root, "Columns that are left out, and masks"))
    customers = rows("SELECT customer_id, city, length(email) FROM shop.customers ORDER BY ALL")
    assert customers == [(1, "B", 64), (2, "G", 64), (3, None, 64)]
    assert rows("SELECT DISTINCT status FROM shop.orders") == [("***",)]


def test_a_run_with_the_tag_of_a_full_refresh_loads_all_rows_again(
    root: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    tables = example(root, "incremental").TABLES

    @dlt_assets(
        dlt_source=database_source(tables, name="shop"),
        dlt_pipeline=warehouse.pipeline("shop_pipeline", "shop"),
        dagster_dlt_translator=WarehouseTranslator(owner="team:shop"),
        name="shop_assets",
    )
    def shop_assets(
        context: dg.AssetExecutionContext, dlt: WarehouseDltResource
    ) -> Iterator[object]:
        yield from dlt.run(context=context, dlt_source=database_source(tables, name="shop"))

    defs = dg.Definitions(
        assets=[shop_assets],
        jobs=[
            example(root, "Full refresh").reload_orders,
            dg.define_asset_job("load", selection="*"),
        ],
        resources={"dlt": WarehouseDltResource()},
    )
    found = []
    for job in ("load", "reload_orders"):
        assert defs.resolve_job_def(job).execute_in_process(instance=instance).success
        found.append((1, "sent") in rows(ORDERS))
        run("DELETE FROM orders WHERE order_id = 1")
    assert found == [True, False], "only the second run sees that the row is deleted"


def test_the_changes_of_a_table_are_loaded_and_its_slot_is_watched(
    root: Path,
    run: Run,
    warehouse_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    instance: dg.DagsterInstance,
) -> None:
    url = warehouse_server.database().replace("+psycopg2", "")
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("CREATE TABLE orders (order_id int PRIMARY KEY, status text)")
        cursor.execute("INSERT INTO orders VALUES (1, 'sent'), (2, 'new')")
        load(example(root, "changes"))
        cursor.execute("DELETE FROM orders WHERE order_id = 1; UPDATE orders SET status = 'paid'")
        load(example(root, "changes"))
        assert rows(ORDERS) == [(2, "paid")]
        assert checked(example(root, "changes", 1).orders_slot, instance)
        cursor.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )


def checked(check: dg.AssetChecksDefinition, instance: dg.DagsterInstance) -> bool:
    """Return whether the check of an asset passes."""
    defs = dg.Definitions(
        assets=[dg.AssetSpec(key.asset_key) for key in check.check_keys], asset_checks=[check]
    )
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
    return all(evaluation.passed for evaluation in result.get_asset_check_evaluations())


def test_the_sensor_requests_the_tables_that_have_changed(
    root: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    sensor = example(root, "Load only what has changed").changed_tables
    assets = [dg.AssetSpec(dg.AssetKey(["shop", name])) for name in ("customers", "orders")]
    defs = dg.Definitions(assets=assets, sensors=[sensor])
    context = dg.build_sensor_context(instance=instance, definitions=defs)
    requests = sensor.evaluate_tick(context).run_requests
    assert requests
    (request,) = requests
    assert {key.to_user_string() for key in request.asset_selection or ()} == {
        "shop/customers",
        "shop/orders",
    }
    assert "etl/changed_tables" in request.tags


def test_the_check_finds_a_row_that_was_changed_in_the_warehouse(
    root: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    load(example(root, "incremental"))
    module = example(root, "Compare the warehouse with the source")
    assert checked(module.orders_agree, instance)
    assert module.every_night.cron_schedule == "0 3 * * *"
