"""The generic checks report what is wrong, and the rows."""

from collections.abc import Iterator

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator, asset_key

sold: list[dict[str, int]] = []


@dlt.source(name="sold")
def sold_source() -> DltResource:
    """Return the rows of `sold`; a column has a name that the check could use itself."""

    @dlt.resource(write_disposition="replace")
    def items() -> Iterator[list[dict[str, int]]]:
        yield list(sold)

    return items


@dlt_assets(
    dlt_source=sold_source(),
    dlt_pipeline=warehouse.pipeline("sold_pipeline", dataset_name="sold"),
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    name="items",
)
def items(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context)


unique = build_unique_rows_check(asset_key("sold", "items"), ["shop", "times"])


@pytest.mark.usefixtures("any_warehouse")
def test_a_duplicate_row_is_named() -> None:
    for rows, expected in (
        ([{"shop": 1, "times": 1}, {"shop": 1, "times": 2}], "all rows are unique"),
        ([{"shop": 1, "times": 2}, {"shop": 1, "times": 2}], "1, 2: 2 times"),
    ):
        sold[:] = rows
        result = dg.materialize([items, unique], resources={"dlt": WarehouseDltResource()})
        (check,) = result.get_asset_check_evaluations()
        assert check.description == expected
        assert check.passed == (expected == "all rows are unique")


@pytest.mark.usefixtures("any_warehouse")
def test_a_missing_table_is_reported_in_a_line(instance: dg.DagsterInstance) -> None:
    defs = dg.Definitions([items], asset_checks=[unique], resources={"dlt": WarehouseDltResource()})
    job = dg.define_asset_job("check", dg.AssetSelection.checks(unique))
    defs = dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
    result = defs.resolve_job_def("check").execute_in_process(
        instance=instance, raise_on_error=False
    )
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    failure = failed.step_failure_data.user_failure_data
    assert failure
    assert failure.description
