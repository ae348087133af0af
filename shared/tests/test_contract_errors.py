"""An error about a table names it, its column and the next step; the command that it prints works."""

import shlex
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import dlt
import pytest
from dlt.extract import DltResource, DltSource
from typer.testing import CliRunner

from shared import warehouse
from shared.cli import app
from support.warehouse_client import execute

SLOW_ON_SERVERS = True

SHOP = warehouse.pipeline("shop", dataset_name="shop")


def shop(rows: Sequence[Any], **hints: Any) -> DltSource:
    @dlt.source(name="shop")
    def source() -> DltResource:
        how: Any = {"write_disposition": "replace", **hints}
        resource: DltResource = dlt.resource(list(rows), name="orders", **how)
        return resource

    return source()


def load(rows: Sequence[Any], log: Callable[[str], None] = print, **hints: Any) -> None:
    warehouse.load(warehouse.plan_load(SHOP, shop(rows, **hints)), log)


def refusal(rows: Sequence[Any], **hints: Any) -> str:
    """Return the error of a load that loads nothing."""
    before = warehouse.query("FROM shop.orders")
    with pytest.raises(warehouse.WarehouseError) as error:
        load(rows, **hints)
    assert warehouse.query("FROM shop.orders") == before
    assert "nothing was loaded" in str(error.value)
    assert "_dlt_" not in str(error.value)
    return str(error.value)


def run_command_of(message: str) -> None:
    """Run the command at the end of a message."""
    command = message[message.index("etl migrate") :]
    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--yes"])
    assert done.exit_code == 0, done.output


SENT: dict[str, tuple[Any, Any, str]] = {
    "fraction": (1, 1.5, "--type double"),
    "text": (1, "one", "--type text"),
}


@pytest.mark.usefixtures("any_warehouse")
def test_a_value_of_another_type_prints_the_command_after_which_it_loads() -> None:
    load([{"id": 1, **{name: old for name, (old, _, _) in SENT.items()}}])
    for name, (old, new, options) in SENT.items():
        message = refusal([{"id": 1, name: new}])
        assert f"shop.orders.{name} is" in message
        assert repr(new)[:10] in message
        assert message.endswith(f"etl migrate shop.orders --column {name} {options}")
        run_command_of(message)
        load([{"id": 1, name: new}, {"id": 2, name: old}])


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_changed_declaration_prints_the_command_after_which_it_loads() -> None:
    load([{"id": 1, "price": 1}])
    message = refusal([{"id": 1, "price": 1}], columns={"price": {"data_type": "double"}})
    assert "shop.orders.price is bigint and the resource's columns say double" in message
    run_command_of(message)
    load([{"id": 1, "price": 1}], columns={"price": {"data_type": "double"}})


@pytest.mark.usefixtures("any_warehouse")
def test_a_column_that_becomes_text_does_not_keep_the_size_of_its_numbers() -> None:
    price: Any = {"data_type": "decimal", "precision": 18, "scale": 4}
    load([{"id": 1, "price": 1}], columns={"price": price})
    message = refusal([{"id": 1, "price": "one"}], columns={"price": {"data_type": "text"}})
    assert "shop.orders.price is decimal(18,4) and the resource's columns say text" in message
    assert message.endswith("etl migrate shop.orders --column price --type text")
    run_command_of(message)
    load([{"id": 1, "price": "one"}], columns={"price": {"data_type": "text"}})


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_migration_that_would_change_a_value_is_not_printed() -> None:
    load([{"id": 1, "price": 2**53 + 1}])
    message = refusal([{"id": 1, "price": 1.5}])
    assert "etl migrate" not in message
    assert "1 value would change as double, such as 9007199254740993" in message


@pytest.mark.usefixtures("tmp_warehouse")
def test_after_a_migration_older_code_is_told_both_ways() -> None:
    old: Any = {"price": {"data_type": "bigint"}}
    load([{"id": 1, "price": 1}], columns=old)
    run_command_of("etl migrate shop.orders --column price --type double")
    message = refusal([{"id": 1, "price": 1}], columns=old)
    assert "shop.orders.price is double and the resource's columns say bigint" in message
    run_command_of(message)
    load([{"id": 1, "price": 2}], columns=old)


@pytest.mark.usefixtures("tmp_warehouse")
def test_before_the_first_load_the_error_says_to_declare_another_type() -> None:
    source = shop([{"id": 1, "cost": date(2025, 3, 10)}], columns={"cost": {"data_type": "bool"}})
    with pytest.raises(warehouse.SchemaContractError, match=r"columns=\{'cost'") as error:
        warehouse.load(warehouse.plan_load(SHOP, source))
    assert "shop.orders.cost is bool and upstream sent date" in str(error.value)
    assert "etl migrate" not in str(error.value)


@pytest.mark.usefixtures("any_warehouse")
def test_a_new_column_that_is_never_null_names_the_rows_without_a_value() -> None:
    load([{"id": 1}, {"id": 2}])
    strict: Any = {"currency": {"data_type": "text", "nullable": False}}
    rows = [{"id": 1, "currency": "EUR"}]
    message = refusal(rows, columns=strict)
    assert "shop.orders has 2 rows and no column currency" in message
    load(rows, columns={"currency": {"data_type": "text"}})
    run_command_of(message)
    load(rows, columns=strict)


DROPPED = {
    "replace": ["TABLE shop.orders"],
    "merge": ["TABLE shop.orders", "TABLE shop.orders__lines", "COLUMN shop.orders.price"],
}


@pytest.mark.usefixtures("any_warehouse")
@pytest.mark.parametrize("disposition", DROPPED)
def test_what_was_dropped_by_hand_is_created_again_and_the_log_says_so(disposition: str) -> None:
    rows = [{"id": 1, "price": 5, "lines": [{"n": 1}]}]
    load(rows, primary_key="id", write_disposition=disposition)
    for dropped in DROPPED[disposition]:
        kind, _, name = dropped.partition(" ")
        table, _, column = name.rpartition(".")
        drop = f"DROP COLUMN {column}"
        execute("shop", f"DROP TABLE {name}" if kind == "TABLE" else f"ALTER TABLE {table} {drop}")
        logged: list[str] = []
        load(rows, logged.append, primary_key="id", write_disposition=disposition)
        assert any(column in line and "again" in line for line in logged)
        assert warehouse.query("SELECT id, price FROM shop.orders") == [{"id": 1, "price": 5}]
        assert warehouse.query("SELECT n FROM shop.orders__lines") == [{"n": 1}]


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_dropped_table_with_a_cursor_does_not_lose_its_older_rows() -> None:
    def append(upto: int, **arguments: Any) -> None:
        rows = [{"id": n} for n in range(1, upto + 1)]
        source = shop(rows, write_disposition="append", incremental=dlt.sources.incremental("id"))
        options = warehouse.LoadOptions(extract_arguments=arguments)
        warehouse.load(warehouse.plan_load(SHOP, source, options=options))

    append(2)
    execute("shop", "DROP TABLE shop.orders")
    with pytest.raises(warehouse.LoadPlanError, match=r"shop\.orders was dropped.*refresh"):
        append(3)
    append(3, refresh="drop_resources")
    assert warehouse.query("SELECT id FROM shop.orders ORDER BY 1") == [
        {"id": 1},
        {"id": 2},
        {"id": 3},
    ]
