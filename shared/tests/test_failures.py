"""A failure says in its own words what went wrong, where, and no secret."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource

from shared import warehouse
from shared.failures import told_plainly
from shared.resources import WarehouseDltResource
from shared.translator import WarehouseTranslator


@dlt.source(name="broken")
def broken() -> DltResource:
    """Fails in the middle, as a source does whose upstream sends something else."""

    @dlt.resource(write_disposition="replace")
    def orders() -> Iterator[dict[str, Any]]:
        yield {"price": 1}
        answer: dict[str, int] = {}
        yield {"price": answer["price"]}

    return orders


@dlt_assets(
    dlt_source=broken(),
    dlt_pipeline=warehouse.pipeline("broken_pipeline", dataset_name="broken"),
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    name="broken",
)
def broken_asset(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context)


@pytest.mark.usefixtures("warehouse_folder")
def test_a_failed_load_tells_what_went_wrong_and_the_line_and_no_frames_of_libraries(
    instance: dg.DagsterInstance,
) -> None:
    result = dg.materialize(
        [broken_asset],
        resources={"dlt": WarehouseDltResource()},
        instance=instance,
        raise_on_error=False,
    )
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    told = failed.step_failure_data.user_failure_data
    assert told
    assert told.description == "KeyError: 'price'"
    assert told.metadata
    where = str(told.metadata["where"].value)
    assert where.endswith(" in orders")
    assert "shared/tests/test_failures.py:" in where
    assert "site-packages" not in where
    # Who needs the whole stack finds it in the log.
    logged = instance.all_logs(result.run_id)
    assert any("Traceback" in event.user_message and event.level == 10 for event in logged)


@pytest.mark.parametrize("how", ["in a note", "in a group", "as a key"])
def test_a_secret_stands_neither_in_the_failure_nor_in_the_log(
    how: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKED_API_KEY", "marked-key")

    @dg.asset
    def leaky() -> None:
        error: Exception = KeyError("marked-key")
        if how == "in a note":
            error = ValueError("no answer")
            error.add_note("asked https://example.com?key=marked-key")
        elif how == "in a group":
            error = ExceptionGroup("all", [ValueError("marked-key")])
        with told_plainly():
            raise error

    result = dg.materialize([leaky], instance=instance, raise_on_error=False)
    assert not result.success
    stored = str(instance.all_logs(result.run_id))
    assert "***" in stored
    assert "marked-key" not in stored
