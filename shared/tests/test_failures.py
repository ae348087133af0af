"""A failure shows what went wrong and where, without secrets."""

import inspect
from collections.abc import Iterator
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.configuration.specs import BaseConfiguration
from dlt.extract import DltResource
from dlt.extract.exceptions import ResourceExtractionError

from shared import warehouse
from shared.orchestration.failures import as_dagster_failure
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.warehouse import errors


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
            error = dg.Failure(f"no response to {key}", metadata={"request": f"?q={key}"})
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


CONFIGURATION_ERROR = ConfigFieldMissingException(BaseConfiguration(), {})
PERMANENT: list[Exception] = [
    warehouse.SchemaContractError("a type"),
    warehouse.OutOfPartitionError("a row"),
    warehouse.RowCountDropError("few rows"),
    warehouse.WarehouseConfigError("a variable"),
    warehouse.LoadPlanError("a plan"),
    warehouse.DeclarationError("a pipeline"),
    dg.Failure("the source knows", allow_retries=False),
    CONFIGURATION_ERROR,
]
TEMPORARY: list[Exception] = [
    warehouse.WarehouseConnectionError("no server"),
    warehouse.LockTimeoutError("busy"),
    warehouse.ConcurrentSchemaChangeError("two types"),
    ConnectionError("upstream"),
    dg.Failure("the source does not know"),
]
RUN_RETRIES = {
    "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": True}
}


@pytest.fixture(scope="module")
def retrying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """An instance that retries failed runs, as that of a server does."""
    folder = str(tmp_path_factory.mktemp("retrying"))
    with dg.instance_for_test(temp_dir=folder, overrides=RUN_RETRIES) as instance:
        yield instance


def run_failing(
    error: Exception, instance: dg.DagsterInstance, *, wrapped: bool = False
) -> tuple[int, str]:
    """Run an asset with a retry policy that fails; return its attempts, and whether Dagster retries it."""
    attempts = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def failing() -> None:
        attempts.append(1)
        with as_dagster_failure():
            if wrapped:
                raise ResourceExtractionError("orders", iter, "orders", "generator") from error
            raise error

    result = dg.materialize([failing], instance=instance, raise_on_error=False)
    run = instance.get_run_by_id(result.run_id)
    assert run
    return len(attempts), run.tags["dagster/will_retry"]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: type(error).__name__)
def test_a_permanent_failure_is_retried_neither_as_a_step_nor_as_a_run(
    error: Exception, wrapped: bool, retrying: dg.DagsterInstance
) -> None:
    assert run_failing(error, retrying, wrapped=wrapped) == (1, "false")


@pytest.mark.parametrize("error", TEMPORARY, ids=lambda error: type(error).__name__)
def test_a_failure_that_may_pass_is_retried(error: Exception, retrying: dg.DagsterInstance) -> None:
    assert run_failing(error, retrying) == (3, "true")


def test_each_error_of_the_engine_says_whether_it_is_permanent() -> None:
    kinds = {value for value in vars(errors).values() if inspect.isclass(value)}
    raised = {kind for kind in kinds if issubclass(kind, warehouse.WarehouseError)}
    permanent = {kind.__name__ for kind in raised if kind.permanent}
    assert permanent >= {type(error).__name__ for error in PERMANENT[:6]}
    assert not permanent & {type(error).__name__ for error in TEMPORARY}


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_load_that_its_plan_refuses_is_not_retried(retrying: dg.DagsterInstance) -> None:
    @dlt.source(name="shop")
    def shop() -> DltResource:
        return dlt.resource([{"id": 1}], name="orders", write_disposition="append")

    @dlt_assets(
        dlt_source=shop(),
        dlt_pipeline=warehouse.pipeline("shop_pipeline", dataset_name="shop"),
        dagster_dlt_translator=WarehouseTranslator("team:test"),
        partitions_def=dg.StaticPartitionsDefinition(["a"]),
        name="shop",
    )
    def orders(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context, refresh="drop_sources", write_disposition="replace")

    result = dg.materialize(
        [orders],
        resources={"dlt": WarehouseDltResource()},
        partition_key="a",
        instance=retrying,
        raise_on_error=False,
    )
    run = retrying.get_run_by_id(result.run_id)
    assert run
    assert run.tags["dagster/will_retry"] == "false"
