"""What cannot be loaded exactly is refused when the location loads, with what to write instead."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import DagsterDltResource, DagsterDltTranslator, dlt_assets
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.orchestration.component import WarehouseLoadComponent
from shared.orchestration.definitions import check_pipelines
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.warehouse.errors import NotRunnableError

OURS = {"dlt": WarehouseDltResource()}
STOCK = {"dlt": DagsterDltResource()}
SPEC = warehouse.pipeline("shop_pipeline", dataset_name="shop")


@dlt.source(name="shop")
def shop() -> DltResource:
    return dlt.resource([{"id": 1}, {"id": 2}], name="orders", write_disposition="replace")


def stock_pipeline(folder: Path) -> dlt.Pipeline:
    return dlt.pipeline(
        "shop_pipeline", destination="duckdb", dataset_name="shop", pipelines_dir=str(folder)
    )


Body = Callable[[dg.AssetExecutionContext, Any], Iterator[object]]


def asset(
    body: Body | None = None,
    pipeline: Any = SPEC,
    translator: DagsterDltTranslator | None = None,
    source: DltSource | None = None,
    **options: Any,
) -> dg.AssetsDefinition:
    """Return `@dlt_assets` whose function has a body."""

    @dlt_assets(
        dlt_source=source or shop(),
        dlt_pipeline=pipeline,
        dagster_dlt_translator=translator or WarehouseTranslator("team:test"),
        name="shop",
        **options,
    )
    def assets(context: dg.AssetExecutionContext, dlt: DagsterDltResource) -> Iterator[object]:
        yield from body(context, dlt) if body else dlt.run(context)

    return assets


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One instance for all tests of this file: each creates its tables once."""
    folder = str(tmp_path_factory.mktemp("instance"))
    with dg.instance_for_test(temp_dir=folder) as created:
        yield created


def failure(
    assets: dg.AssetsDefinition, instance: dg.DagsterInstance, resources: Any = OURS
) -> str:
    """Return the message of the failed step of a run."""
    result = dg.materialize([assets], resources=resources, instance=instance, raise_on_error=False)
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    data = failed.step_failure_data
    if data.user_failure_data:
        return str(data.user_failure_data.description)
    assert data.error
    return str(data.error.cause.message if data.error.cause else data.error.message)


def test_a_pipeline_of_dlt_is_refused_when_the_asset_is_defined(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"shared\.warehouse\.pipeline\('shop_pipeline', dataset_na"
    ):
        asset(pipeline=stock_pipeline(tmp_path))


def test_a_pipeline_of_dlt_with_the_stock_translator_is_refused_when_the_location_loads(
    tmp_path: Path,
) -> None:
    assets = asset(pipeline=stock_pipeline(tmp_path), translator=DagsterDltTranslator())
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"shared\.warehouse\.pipeline\("):
        check_pipelines(dg.Definitions(assets=[assets], resources=OURS))
    check_pipelines(dg.Definitions(assets=[assets], resources=STOCK))


def test_a_declared_pipeline_with_the_stock_resource_is_refused_when_the_location_loads() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"shop/orders: .* cannot run"):
        check_pipelines(dg.Definitions(assets=[asset()], resources=STOCK))
    check_pipelines(dg.Definitions(assets=[asset()], resources=OURS))


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_declared_pipeline_with_the_stock_resource_says_at_the_start_of_a_run_what_to_write(
    instance: dg.DagsterInstance,
) -> None:
    assert "WarehouseDltResource` loads it" in failure(asset(), instance, STOCK)


@pytest.mark.parametrize(
    "use",
    [
        lambda spec: spec.run([{"id": 1}]),
        lambda spec: spec.extract(shop()),
        lambda spec: spec.load(),
        lambda spec: spec.sync_destination(),
        lambda spec: spec.sql_client(),
        lambda spec: spec.dataset(),
        lambda spec: spec.drop(),
        lambda spec: spec.last_trace,
        lambda spec: spec.default_schema,
    ],
)
def test_a_declared_pipeline_used_as_one_of_dlt_says_what_loads_it(
    use: Callable[[Any], object],
) -> None:
    with pytest.raises(NotRunnableError, match=r"warehouse\.load"):
        use(SPEC)


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_resource_in_place_of_a_source_is_refused(instance: dg.DagsterInstance) -> None:
    orders: Any = shop().resources["orders"]
    message = failure(asset(lambda context, dlt: dlt.run(context, orders)), instance)
    assert "the resource 'orders' is not a dlt source" in message
    assert "@dlt.source" in message


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_second_load_of_an_asset_in_one_step_is_refused(instance: dg.DagsterInstance) -> None:
    def twice(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context)
        yield from dlt.run(context)

    message = failure(asset(twice), instance)
    assert "dlt.run was called a second time for shop/orders" in message


@pytest.mark.usefixtures("tmp_warehouse")
def test_two_loads_of_different_tables_in_one_step_are_no_second_load(
    instance: dg.DagsterInstance,
) -> None:
    @dlt.source(name="shop")
    def both() -> list[DltResource]:
        rows = [{"id": 1}]
        return [dlt.resource(rows, name=name, write_disposition="replace") for name in ("a", "b")]

    def each(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context, both().with_resources("a"))
        yield from dlt.run(context, both().with_resources("b"))

    assets = asset(each, source=both())
    assert dg.materialize([assets], resources=OURS, instance=instance).success


@pytest.mark.usefixtures("tmp_warehouse")
def test_fetch_row_count_keeps_the_row_counts_of_the_load(instance: dg.DagsterInstance) -> None:
    assets = asset(lambda context, dlt: dlt.run(context).fetch_row_count())
    result = dg.materialize([assets], resources=OURS, instance=instance)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["dagster/row_count"].value == 2
    assert not [entry for entry in instance.all_logs(result.run_id) if entry.level in (40, 50)]


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_without_partitions_is_refused(size: int, instance: dg.DagsterInstance) -> None:
    assets = asset(
        lambda context, dlt: dlt.run_in_batches(context, lambda _: shop(), size),
        partitions_def=dg.StaticPartitionsDefinition(["a"]),
    )
    with pytest.raises(ValueError, match=rf"partitions_per_batch is {size}; it must be at least 1"):
        dg.materialize([assets], resources=OURS, instance=instance, partition_key="a")


@dlt.source(name="broken")
def broken_source() -> DltResource:
    """Fails while it is built, as code with a typing error does."""
    answer: dict[str, str] = {}
    return dlt.resource([], name=answer["name"])


def test_an_error_in_the_source_of_a_component_is_in_the_definition_error(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "test_declarations", request.module)
    component = WarehouseLoadComponent(
        source="test_declarations.broken_source", dataset="shop", owner="team:test"
    )
    with pytest.raises(dg.DagsterInvalidDefinitionError) as raised:
        dg.build_defs_for_component(component)
    message = str(raised.value)
    assert "attributes.source: test_declarations.broken_source raised KeyError: 'name'" in message
    assert "test_declarations.py" in message
