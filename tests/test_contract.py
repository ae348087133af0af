"""The contracts in the repository are equal to the code, and a change that breaks others is marked."""

import json
import os
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from shared.cli.contract import FILE, stored_contracts, text_of
from shared.cli.contract_changes import compare
from shared.cli.location_inventory import contract, inventory
from shared.cli.locations import code_locations, interpreters
from support.processes import python

LOCATIONS = tuple(name for name in code_locations() if name not in interpreters())


@pytest.mark.parametrize("location", LOCATIONS)
def test_the_contract_of_each_location_is_equal_to_its_code(root: Path, location: str) -> None:
    found = inventory(code_locations()[location])
    assert found["project"] == str(root / "projects" / location)
    stored = stored_contracts(root)
    changes = compare(stored, {**stored, location: found["contract"]})
    assert not changes, "uv run etl contract --update"
    file = root / "projects" / location / FILE
    assert file.read_text() == text_of(location, found["contract"])
    assert str(root) not in file.read_text()


def shop(columns: dict[str, str], **checks: str) -> dict[str, Any]:
    asset = {"owners": ["team:shop"], "partitions": None, "depends_on": []}
    return {
        "assets": {"shop/orders": {**asset, "columns": columns, "checks": checks}},
        "jobs": ["load_orders"],
        "schedules": {"at_six": "load_orders at 0 6 * * *, UTC"},
        "sensors": [],
    }


READER = {
    "assets": {
        "mart/sales": {
            "owners": ["team:mart"],
            "partitions": None,
            "depends_on": ["shop/orders"],
            "columns": {},
            "checks": {},
        }
    },
    "jobs": [],
    "schedules": {},
    "sensors": [],
}
ORDERS = shop({"id": "bigint not null", "price": "decimal(18,4)"}, rows_are_unique="ERROR")


def changed(**after: Any) -> list[str]:
    """Return the differences after the contract of the shop, or an asset of it, has changed."""
    new = deepcopy(ORDERS)
    new["assets"]["shop/orders"] |= {name: after.pop(name) for name in [*after] if name not in new}
    new |= after
    before = {"shop_etl": ORDERS, "mart_etl": READER}
    return [str(change) for change in compare(before, {"shop_etl": new, "mart_etl": READER})]


def test_a_change_that_a_reader_in_another_location_depends_on_is_breaking() -> None:
    assert changed(columns={"id": "text not null"}) == [
        "BREAKING  shop/orders: column id: bigint not null -> text not null; read by mart/sales",
        "BREAKING  shop/orders: column price is removed; read by mart/sales",
    ]
    assert changed(checks={}) == [
        "BREAKING  shop/orders: check rows_are_unique is removed; read by mart/sales"
    ]
    assert changed(partitions="Daily, starting 2018-01-22 UTC.") == [
        "BREAKING  shop/orders: partitions none -> Daily, starting 2018-01-22 UTC.; read by mart/sales"
    ]
    assert changed(assets={}) == ["BREAKING  shop/orders: the asset is removed; read by mart/sales"]
    assert changed(jobs=[]) == ["BREAKING  shop_etl: job load_orders is removed"]


def test_an_addition_is_not_breaking() -> None:
    columns = {"id": "bigint not null", "price": "decimal(18,4) not null", "tax": "double"}
    assert changed(columns=columns) == [
        "added     shop/orders: column tax is new: double",
        "changed   shop/orders: column price: decimal(18,4) -> decimal(18,4) not null",
    ]
    assert changed(jobs=["load_orders", "other"]) == ["added     shop_etl: job other is new"]
    assert changed(owners=["team:a"]) == [
        "changed   shop/orders: owners team:shop -> team:a",
    ]
    assert changed(schedules={}) == ["removed   shop_etl: schedule at_six is removed"]


def test_without_a_reader_nothing_but_a_removed_job_is_breaking() -> None:
    new = shop({}, rows_are_unique="WARN")
    changes = compare({"shop_etl": ORDERS}, {"shop_etl": new | {"jobs": []}})
    assert [change.breaking for change in changes] == [True, False, False, False]
    # The reader is removed in the same change, so nobody reads the asset any more.
    changes = compare({"shop_etl": ORDERS, "mart_etl": READER}, {"shop_etl": new})
    assert not any(change.breaking for change in changes)


def test_an_asset_that_moves_to_another_location_is_the_same_asset() -> None:
    (job, *rest) = compare({"shop_etl": ORDERS}, {"new_etl": ORDERS})
    assert str(job) == "BREAKING  shop_etl: job load_orders is removed"
    assert "changed   shop/orders: location shop_etl -> new_etl" in map(str, rest)


def test_the_contract_has_what_readers_depend_on_and_no_status() -> None:
    column = dg.TableColumn("day", "date", constraints=dg.TableColumnConstraints(nullable=False))
    job = dg.define_asset_job("load", selection="sales")

    @dg.asset(
        deps=["orders"],
        owners=["team:mart"],
        partitions_def=dg.StaticPartitionsDefinition(["b", "a"]),
        metadata={"dagster/column_schema": dg.TableSchema([column, dg.TableColumn("n", "int")])},
    )
    def sales() -> None:
        pass

    @dg.asset_check(asset=sales, blocking=True)
    def days() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    @dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING)
    def watch() -> None:
        pass

    schedule = dg.ScheduleDefinition(name="daily", job=job, cron_schedule="0 6 * * *")
    defs = dg.Definitions([sales], [schedule], [watch], [job], asset_checks=[days])
    assert contract(defs) == {
        "assets": {
            "sales": {
                "owners": ["team:mart"],
                "partitions": "'b', 'a'",
                "depends_on": ["orders"],
                "columns": {"day": "date not null", "n": "int"},
                "checks": {"days": "blocking"},
            }
        },
        "jobs": ["load"],
        "schedules": {"daily": "load at 0 6 * * *, UTC"},
        "sensors": ["watch"],
    }


def etl_contract(clone: Path, environment: dict[str, str], *options: str) -> tuple[int, str]:
    """Run `etl contract csv_etl` in a clone, with the code of the clone."""
    sources = [clone / "shared/src", *clone.glob("projects/*/src")]
    done = subprocess.run(
        [python(), "-m", "shared.cli", "contract", "csv_etl", *options],
        cwd=clone,
        env={**environment, "PYTHONPATH": os.pathsep.join(map(str, sources))},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_changed_column_fails_until_the_contract_is_updated(
    clone: Path, process_environment: dict[str, str]
) -> None:
    code = clone / "projects/csv_etl/src/csv_etl/format.py"
    code.write_text(
        code.read_text().replace('_money("Opening price, in US dollars.")', '{"data_type": "text"}')
    )
    (clone / "projects/gone_etl").mkdir()
    old = clone / "projects/gone_etl" / FILE
    old.write_text(json.dumps({"location": "gone_etl", "assets": {}, "jobs": ["gone"]}))
    status, output = etl_contract(clone, {**process_environment, "WAREHOUSE_TYPE": "postgres"})
    assert status == 1
    assert "changed   csv_data/share_prices: column spend: decimal(18,4) -> text\n" in output
    assert "BREAKING  gone_etl: job gone is removed\n" in output
    assert all("column spend" in line for line in output.splitlines()[:-1] if "gone" not in line)
    assert "uv run etl contract --update" in output
    assert etl_contract(clone, process_environment, "--update")[0] == 0
    assert not old.exists()
    assert etl_contract(clone, process_environment, "--json") == (0, "[]\n")


@pytest.mark.slow
def test_a_location_that_does_not_load_is_one_line_and_writes_nothing(
    clone: Path, process_environment: dict[str, str]
) -> None:
    (clone / "projects/csv_etl/src/csv_etl/format.py").write_text("SHARE_PRICES = 1 +")
    before = (clone / "projects/csv_etl" / FILE).read_text()
    status, output = etl_contract(clone, process_environment, "--update")
    assert status == 1
    assert output.startswith("csv_etl: SyntaxError: ")
    assert output.endswith("Nothing was compared or written.\n")
    assert output.count("\n") == 1
    assert (clone / "projects/csv_etl" / FILE).read_text() == before
    (clone / "projects/csv_etl" / FILE).write_text("<<<<<<< HEAD\n{}")
    (clone / "projects/csv_etl/src/csv_etl/format.py").write_text("")
    assert etl_contract(clone, process_environment)[0] == 1
