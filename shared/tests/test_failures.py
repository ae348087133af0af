"""A failure shows what went wrong and where, without secrets."""

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
    """Fail partway through, like a source whose upstream sends unexpected data."""

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
def test_a_failed_load_shows_the_error_and_the_line_without_frames_of_libraries(
    instance: dg.DagsterInstance,
) -> None:
    result = dg.materialize(
        [broken_asset],
        resources={"dlt": WarehouseDltResource()},
        instance=instance,
        raise_on_error=False,
    )
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    failure = failed.step_failure_data.user_failure_data
    assert failure
    assert failure.description == "KeyError: 'price'"
    assert failure.metadata
    frames = str(failure.metadata["traceback"].value)
    assert frames.endswith(" in orders")
    assert "shared/tests/test_failures.py:" in frames
    assert "site-packages" not in frames
    # The log has the full traceback.
    logged = instance.all_logs(result.run_id)
    assert any("Traceback" in event.user_message and event.level == 10 for event in logged)


@pytest.mark.parametrize("length", [20, 400])
@pytest.mark.parametrize(
    "place", ["in a note", "in a group", "as a key", "in a failure", "in Dagster's"]
)
def test_a_secret_is_neither_in_the_failure_nor_in_the_log(
    place: str, length: int, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "marked-key".ljust(length, "y")
    monkeypatch.setenv("MARKED_API_KEY", key)

    @dg.asset
    def leaky() -> None:
        error: Exception = KeyError(key)
        if place == "in a note":
            error = ValueError("no response")
            error.add_note(f"GET https://example.com?key={key}")
        elif place == "in a group":
            error = ExceptionGroup("all", [ValueError(key)])
        elif place == "in a failure":
            error = dg.Failure(f"no response to {key}")
        elif place == "in Dagster's":
            error = dg.DagsterInvariantViolationError(f"no {key}")
        with as_dagster_failure():
            raise error

    result = dg.materialize([leaky], instance=instance, raise_on_error=False)
    assert not result.success
    stored = str(instance.all_logs(result.run_id))
    assert "***" in stored
    assert "marked-key" not in stored


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_source_that_requests_a_retry_gets_it(
    wrapped: bool, instance: dg.DagsterInstance
) -> None:
    tries = []

    @dg.asset
    def busy() -> None:
        tries.append(1)
        if len(tries) > 1:
            return
        with as_dagster_failure():
            request = dg.RetryRequested()
            if wrapped:
                raise ResourceExtractionError("busy", iter, "orders", "generator") from request
            raise request

    assert dg.materialize([busy], instance=instance).success
    assert len(tries) == 2
