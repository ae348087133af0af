"""`etl migrate`: the table and dlt's stored schema change together, no value changes, and loads go on."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import dlt
import pytest
from dlt.extract import DltResource, DltSource
from typer.testing import CliRunner

from shared import warehouse
from shared.cli import app
from shared.warehouse import TableChange
from support.warehouse_client import client_of

SLOW_ON_SERVERS = True

SHOP = warehouse.pipeline("shop", dataset_name="shop")


def shop(rows: Sequence[Any], name: str = "orders", **hints: Any) -> DltSource:
    """Return a source of one table, which is replaced by key unless `hints` say otherwise."""

    @dlt.source(name="shop")
    def source() -> DltResource:
        how: Any = {"primary_key": "id", "write_disposition": "merge", **hints}
        resource: DltResource = dlt.resource(list(rows), name=name, **how)
        return resource

    return source()


def load(rows: Sequence[Any], name: str = "orders", **hints: Any) -> warehouse.LoadResult:
    return warehouse.load(warehouse.plan_load(SHOP, shop(rows, name, **hints)))


def values(columns: str = "id, price", table: str = "orders") -> list[tuple[Any, ...]]:
    rows = warehouse.query(f"SELECT {columns} FROM shop.{table} ORDER BY 1")
    return [tuple(row.values()) for row in rows]


def change(column: str | None = "price", table: str = "orders", **what: Any) -> TableChange:
    return TableChange("shop", table, column, **what)


def migrate(column: str | None = "price", table: str = "orders", **what: Any) -> None:
    warehouse.migrate(warehouse.plan_migration(change(column, table, **what)))


def stored_columns(table: str = "orders") -> dict[str, str]:
    (info,) = [info for info in warehouse.list_tables() if info.name == table]
    return {column.name: column.type for column in info.columns}


TWO = [{"id": 1, "price": 10}, {"id": 2, "price": 20}]

WIDER: dict[str, Any] = {"double": 1.5, "text": "ten"}


@pytest.mark.usefixtures("any_warehouse")
def test_after_a_wider_type_the_same_code_loads_the_value_that_was_refused() -> None:
    columns = dict(enumerate(WIDER))
    load([{"id": 1, **{f"c{n}": 10 for n in columns}}])
    for number, data_type in columns.items():
        row = {"id": 2, f"c{number}": WIDER[data_type]}
        with pytest.raises(warehouse.SchemaContractError):
            load([row])
        migrate(f"c{number}", data_type=data_type)
        load([row])
        ((old, new),) = values(f"min(c{number}) AS old, max(c{number}) AS new")
        assert {old, new} == {WIDER[data_type], {"double": 10.0, "text": "10"}[data_type]}
        assert stored_columns()[f"c{number}"] == data_type
    assert values("id") == [(1,), (2,)]


KEPT: list[tuple[str, str, Sequence[Any]]] = [
    ("bigint", "double", [2**53, 2**53 + 2]),
    ("bigint", "decimal(21,2)", [2**62]),
    ("bigint", "text", [1, 2]),
    ("double", "bigint", [1.0, -2.0]),
    ("text", "bigint", ["7", "-3"]),
    ("text", "date", ["2025-03-10"]),
    ("decimal(12,4)", "decimal(10,2)", [Decimal("1.05"), Decimal("2.5")]),
    ("decimal(12,4)", "double", [Decimal("1.05")]),
    ("bool", "text", [True]),
    ("date", "timestamp", ["2025-03-10"]),
    ("timestamp", "date", ["2025-03-10T00:00:00Z"]),
]
CHANGED: list[tuple[str, str, Sequence[Any], int, str]] = [
    ("bigint", "double", [2**53, 2**53 + 1, 2**53 + 3], 2, "9007199254740993"),
    ("bigint", "decimal(4,2)", [99, 100], 1, "100"),
    ("double", "bigint", [1.0, 2.5], 1, "2.5"),
    ("text", "bigint", ["7", "07", "seven", "7.5"], 3, "07"),
    ("text", "date", ["2025-03-10", "10.3.2025"], 1, "10.3.2025"),
    ("decimal(12,4)", "decimal(10,2)", [Decimal("1.0051"), Decimal("2.5")], 1, "1.0051"),
    ("timestamp", "date", ["2025-03-10T00:00:00Z", "2025-03-10T01:00:00Z"], 1, "2025-03-10 01:00"),
]


def load_columns(columns: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Load a table with some values in each column, and NULL below them."""
    hints: Any = {f"c{n}": warehouse.parse_type(kind) for n, (kind, _) in enumerate(columns)}
    rows: list[dict[str, Any]] = [{"id": key} for key in range(5)]
    for number, (_, sent) in enumerate(columns):
        for row, value in zip(rows, sent, strict=False):
            row[f"c{number}"] = value
    load(rows, columns=hints)


@pytest.mark.usefixtures("any_warehouse")
def test_a_type_changes_if_every_value_survives() -> None:
    load_columns([(old, sent) for old, _, sent in KEPT])
    counts = ", ".join(f"count(c{number}) AS n{number}" for number in range(len(KEPT)))
    before = values(counts)
    for number, (_, new, _) in enumerate(KEPT):
        migrate(f"c{number}", data_type=new)
    types = stored_columns()
    del types["id"]
    assert list(types.values()) == [new.replace(",", ", ") for _, new, _ in KEPT]
    assert values(counts) == before


@pytest.mark.usefixtures("any_warehouse")
def test_a_type_does_not_change_if_a_value_would() -> None:
    load_columns([(old, sent) for old, _, sent, _, _ in CHANGED])
    before, types = values("*"), stored_columns()
    for number, (_, new, _, count, example) in enumerate(CHANGED):
        with pytest.raises(warehouse.MigrationError) as refused:
            migrate(f"c{number}", data_type=new)
        assert re.search(
            rf"c{number}: {count} values? would.* such as {example}", str(refused.value)
        )
    assert (values("*"), stored_columns()) == (before, types)


@pytest.mark.usefixtures("any_warehouse")
def test_a_renamed_column_keeps_its_values_and_old_code_is_told_the_new_name() -> None:
    load(TWO)
    migrate(rename_to="unit_price")
    load([{"id": 3, "unit_price": 30}])
    assert values("id, unit_price") == [(1, 10), (2, 20), (3, 30)]
    with pytest.raises(warehouse.SchemaContractError) as refused:
        load([{"id": 4, "price": 40}])
    assert "unit_price" in str(refused.value)
    back = "etl migrate shop.orders --column unit_price --rename-to price"
    assert str(refused.value).endswith(back)
    assert "price" not in stored_columns()
    migrate("unit_price", rename_to="price")
    load([{"id": 4, "price": 40}])
    assert values() == [(1, 10), (2, 20), (3, 30), (4, 40)]


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_former_name_can_be_used_again_when_that_is_said() -> None:
    load(TWO)
    migrate(rename_to="cost")
    migrate(None, rename_to="sales")
    for name in ("price", "orders"):
        migrate(None, "sales", reuse_name=name)
    load([{"id": 3, "price": 30}])
    load([{"id": 4, "price": 40}], "sales")
    assert values() == [(3, 30)]
    assert values("id, cost, price", "sales") == [(1, 10, None), (2, 20, None), (4, None, 40)]


CURSOR: Any = dlt.sources.incremental("id")


def appended(upto: int, table_name: str = "orders", name: str = "orders") -> DltSource:
    """Return a source that appends after its cursor, with a nested table."""

    @dlt.source(name="shop")
    def source() -> DltResource:
        @dlt.resource(name=name, table_name=table_name, write_disposition="append")
        def rows(cursor: Any = CURSOR) -> Any:
            del cursor
            yield [{"id": n, "items": [{"n": n}]} for n in range(1, upto + 1)]

        return rows

    return source()


def append(upto: int, table_name: str = "orders", name: str = "orders") -> None:
    warehouse.load(warehouse.plan_load(SHOP, appended(upto, table_name, name)))


@pytest.mark.usefixtures("any_warehouse")
def test_a_renamed_table_takes_its_nested_tables_and_its_cursor_along() -> None:
    append(2)
    migrate(None, rename_to="sales")
    append(3, "sales")
    assert values("id", "sales") == values("n", "sales__items") == [(1,), (2,), (3,)]
    assert [info.name for info in warehouse.list_tables()] == ["sales", "sales__items"]
    with pytest.raises(warehouse.SchemaContractError) as refused:
        append(4)
    assert str(refused.value).endswith("etl migrate shop.sales --rename-to orders")
    migrate(None, "sales", rename_to="orders")
    append(4)
    assert values("id") == values("n", "orders__items") == [(1,), (2,), (3,), (4,)]


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_renamed_resource_does_not_lose_the_cursor_of_its_table() -> None:
    append(2)
    migrate(None, rename_to="sales")
    with pytest.raises(warehouse.LoadPlanError, match="orders") as refused:
        append(3, "sales", "sales")
    assert "sales" in str(refused.value)
    assert values("id", "sales") == [(1,), (2,)]


@pytest.mark.usefixtures("any_warehouse")
def test_a_dropped_column_is_gone_and_comes_back_empty_if_the_code_still_sends_it() -> None:
    load(TWO)
    migrate(drop=True)
    assert list(stored_columns()) == ["id"]
    load([{"id": 1}])
    load([{"id": 3, "price": 30}])
    assert values() == [(1, None), (2, None), (3, 30)]


@pytest.mark.usefixtures("any_warehouse")
def test_a_column_becomes_nullable_and_not_nullable_again_only_without_nulls() -> None:
    strict: Any = {"price": {"data_type": "bigint", "nullable": False}}
    load(TWO, columns=strict)
    migrate(nullable=True)
    with pytest.raises(warehouse.SchemaContractError) as refused:  # old code
        load(TWO, columns=strict)
    assert str(refused.value).endswith("etl migrate shop.orders --column price --not-null")
    load([{"id": 3, "price": None}])
    with pytest.raises(warehouse.MigrationError, match="NULL in 1 row"):
        migrate(nullable=False)
    load([{"id": 3, "price": 3}])
    migrate(nullable=False)
    load([{"id": 3, "price": 4}], columns=strict)
    assert values()[2] == (3, 4)


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"table": "nothing", "rename_to": "x"}, "No pipeline has loaded a table shop.nothing"),
    ({"column": "cost", "data_type": "double"}, "has no column cost; it has id, price"),
    ({"data_type": "float"}, "float is not a type of dlt"),
    ({"data_type": "bigint"}, "is bigint already"),
    ({"column": "_dlt_id", "drop": True}, "a column of dlt"),
    ({"rename_to": "id"}, "has a column id already"),
    ({"rename_to": "Unit Price"}, "unit_price is"),
    ({"column": None, "reuse_name": "cost"}, "is not a former name"),
    ({"column": None, "rename_to": "items"}, "has a table items already"),
    ({"column": None, "table": "orders__lines", "rename_to": "lines"}, "nested in orders"),
]


@pytest.mark.usefixtures("tmp_warehouse")
def test_an_impossible_change_says_why() -> None:
    load([{**row, "lines": [{"n": 1}]} for row in TWO])
    load(TWO, "items")
    for what, message in IMPOSSIBLE:
        with pytest.raises(warehouse.MigrationError, match=message):
            migrate(**what)


@pytest.mark.usefixtures("any_warehouse")
def test_a_change_that_newer_rows_make_impossible_changes_nothing() -> None:
    load(TWO)
    migration = warehouse.plan_migration(change(data_type="double"))
    load([{"id": 3, "price": 2**53 + 1}])
    with pytest.raises(warehouse.MigrationError, match="1 value"):
        warehouse.migrate(migration)
    assert stored_columns()["price"] == "bigint"
    assert values()[2] == (3, 2**53 + 1)


@pytest.mark.usefixtures("any_warehouse")
def test_a_change_that_the_database_refuses_half_way_changes_nothing() -> None:
    append(2)
    with client_of("shop") as client:
        client.sql_client.execute_sql("CREATE TABLE shop.sales__items (n BIGINT)")
    with pytest.raises(warehouse.MigrationError, match="sales__items"):
        migrate(None, rename_to="sales")
    assert [info.name for info in warehouse.list_tables()] == ["orders", "orders__items"]
    append(3)
    assert values("id") == values("n", "orders__items") == [(1,), (2,), (3,)]


@pytest.mark.usefixtures("any_warehouse")
def test_rows_of_a_killed_load_do_not_stay_in_a_renamed_table() -> None:
    append(2)
    append(3)
    with client_of("shop") as client:  # as if that load had been killed before it completed
        client.sql_client.execute_sql(
            "UPDATE shop._dlt_loads SET status = 1 "
            "WHERE load_id = (SELECT max(load_id) FROM shop._dlt_loads)"
        )
    migrate(None, rename_to="sales")
    append(3, "sales")
    assert values("id", "sales") == values("n", "sales__items") == [(1,), (2,), (3,)]


@pytest.mark.usefixtures("tmp_warehouse")
def test_every_schema_that_has_the_table_is_changed() -> None:
    other = shop([{"id": 3, "price": 1}]).clone(with_name="other_shop")
    load(TWO)
    warehouse.load(warehouse.plan_load(SHOP, other))
    migrate(data_type="double")
    load([{"id": 1, "price": 1.5}])
    other = shop([{"id": 3, "price": 3.5}]).clone(with_name="other_shop")
    warehouse.load(warehouse.plan_load(SHOP, other))
    assert values() == [(1, 1.5), (2, 20.0), (3, 3.5)]


@pytest.mark.usefixtures("any_warehouse")
def test_a_migration_waits_for_loads_of_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    load(TWO)
    monkeypatch.setenv("WAREHOUSE_WAIT_SECONDS", "0.1")
    running = warehouse.LoadRun(warehouse.plan_load(SHOP, shop(TWO)))
    with running.locks.dataset_lock(), pytest.raises(warehouse.LockTimeoutError):
        migrate(data_type="double")
    running.cleanup(failed=False)
    migrate(data_type="double")


@pytest.mark.usefixtures("any_warehouse")
def test_a_load_that_extracted_before_a_migration_does_not_undo_it() -> None:
    load(TWO)
    late = warehouse.LoadRun(warehouse.plan_load(SHOP, shop([{"id": 3, "price": 30}])))
    late.extract()
    migrate(drop=True)
    with pytest.raises(warehouse.ConcurrentSchemaChangeError, match=r"orders\.price"):
        late.load()
    late.cleanup(failed=False)
    assert list(stored_columns()) == ["id"]


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_change_and_its_opposite_leave_the_first_schema_in_force() -> None:
    """Its content, and so its hash, is stored already; dlt would go on with the one in between."""
    load([{"id": 1, "price": 10}])
    for nullable in (False, True, False):
        migrate(nullable=nullable)
    with pytest.raises(warehouse.MigrationError, match="already"):
        migrate(nullable=False)
    load([{"id": 2, "price": 20}])
    assert values() == [(1, 10), (2, 20)]


def test_other_warehouses_are_refused(tmp_warehouse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_TYPE", "filesystem")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__BUCKET_URL", (tmp_warehouse / "lake").as_uri())
    with pytest.raises(warehouse.MigrationError, match="duckdb and postgres"):
        warehouse.plan_migration(change(data_type="double"))


@pytest.mark.usefixtures("any_warehouse")
def test_the_command_shows_what_it_does_and_asks_before_it_drops() -> None:
    load(TWO)
    etl = CliRunner().invoke
    widen = ["migrate", "shop.orders", "--column", "price", "--type", "double"]
    shown = etl(app, [*widen, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "ALTER TABLE" in shown.output
    assert "-    data_type: bigint" in shown.output.replace("      ", "    ")
    assert stored_columns()["price"] == "bigint"
    done = etl(app, [*widen, "--yes"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[:-1] == shown.output.splitlines()[:-1]
    assert stored_columns()["price"] == "double"
    dropped = ["migrate", "shop.orders", "--column", "price", "--drop"]
    refused = etl(app, dropped)
    assert refused.exit_code == 2
    assert "--yes" in refused.output
    assert "price" in stored_columns()
    assert etl(app, [*dropped, "--yes"]).exit_code == 0
    assert list(stored_columns()) == ["id"]
    assert etl(app, ["migrate", "shop.orders", "--column", "id"]).exit_code == 2
