"""A failure says in its own words what went wrong, where, and no secret."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource
from dlt.extract.exceptions import ResourceExtractionError

from shared import warehouse
from shared.orchestration.failures import as_dagster_failure
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator


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


@pytest.mark.usefixtures("tmp_warehouse")
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
    where = str(told.metadata["traceback"].value)
    assert where.endswith(" in orders")
    assert "shared/tests/test_failures.py:" in where
    assert "site-packages" not in where
    # Who needs the whole stack finds it in the log.
    logged = instance.all_logs(result.run_id)
    assert any("Traceback" in event.user_message and event.level == 10 for event in logged)


@pytest.mark.parametrize("length", [20, 400])
@pytest.mark.parametrize(
    "how", ["in a note", "in a group", "as a key", "in a failure", "in Dagster's"]
)
def test_a_secret_stands_neither_in_the_failure_nor_in_the_log(
    how: str, length: int, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "marked-key".ljust(length, "y")
    monkeypatch.setenv("MARKED_API_KEY", key)

    @dg.asset
    def leaky() -> None:
        error: Exception = KeyError(key)
        if how == "in a note":
            error = ValueError("no answer")
            error.add_note(f"asked https://example.com?key={key}")
        elif how == "in a group":
            error = ExceptionGroup("all", [ValueError(key)])
        elif how == "in a failure":
            error = dg.Failure(f"no answer to {key}")
        elif how == "in Dagster's":
            error = dg.DagsterInvariantViolationError(f"no {key}")
        with as_dagster_failure():
            raise error

    result = dg.materialize([leaky], instance=instance, raise_on_error=False)
    assert not result.success
    stored = str(instance.all_logs(result.run_id))
    assert "***" in stored
    assert "marked-key" not in stored


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_source_that_asks_for_a_retry_gets_it(
    wrapped: bool, instance: dg.DagsterInstance
) -> None:
    tries = []

    @dg.asset
    def busy() -> None:
        tries.append(1)
        if len(tries) > 1:
            return
        with as_dagster_failure():
            asked = dg.RetryRequested()
            if wrapped:
                raise ResourceExtractionError("busy", iter, "asked", "generator") from asked
            raise asked

    assert dg.materialize([busy], instance=instance).success
    assert len(tries) == 2
