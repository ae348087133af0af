"""A load declared in YAML: `type: shared.orchestration.component.WarehouseLoadComponent` in a `defs.yaml`."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Annotated, Any, Literal

import dagster as dg
from dagster_dlt import dlt_assets
from dlt.extract import DltSource

from shared import warehouse
from shared.orchestration.checks import build_rejected_rows_check, build_unique_rows_check
from shared.orchestration.failures import describe_error
from shared.orchestration.partitions import partitions_of
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator, asset_key

_TIME_PARTITIONS: Mapping[str, Callable[..., dg.TimeWindowPartitionsDefinition]] = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}


class Dimension(dg.Model):
    """The partitions of a load, or of one of its dimensions.

    Attributes:
        type: the length of a time window; `cron` for windows between the ticks of a schedule; `static`
            for a list of keys; `dynamic` for keys that are added later.
        start: the first window, in the format of its key, such as `2025-03-10` for days.
        timezone: the time zone of the windows.
        cron: the schedule of `cron` windows, such as `0 6 * * 1-5`.
        format: the format of the keys of `cron` windows.
        keys: the keys of static partitions.
        name: the name of dynamic partitions.
    """

    type: Literal["hourly", "daily", "weekly", "monthly", "cron", "static", "dynamic"]
    start: str | None = None
    timezone: str = "UTC"
    cron: str | None = None
    format: str = "%Y-%m-%d-%H:%M"
    keys: Sequence[str] = ()
    name: str | None = None

    def build(self) -> dg.PartitionsDefinition[Any]:
        """Return Dagster's definition.

        Raises:
            ValueError: with the key that is missing or invalid.
        """
        if self.type == "static":
            if not self.keys:
                raise ValueError("partitions.keys: static partitions need at least one key")
            return dg.StaticPartitionsDefinition(list(self.keys))
        if self.type == "dynamic":
            if self.name is None:
                raise ValueError("partitions.name: dynamic partitions need a name")
            return dg.DynamicPartitionsDefinition(name=self.name)
        if self.start is None:
            raise ValueError(f"partitions.start: {self.type} partitions need the first one")
        if self.type == "cron" and self.cron is None:
            raise ValueError("partitions.cron: cron partitions need a schedule")
        try:
            definition = self._build_windows(self.start)
            definition.get_first_partition_window()
        except Exception as error:
            raise ValueError(f"partitions.start, partitions.timezone: {error}") from error
        return definition

    def _build_windows(self, start: str) -> dg.TimeWindowPartitionsDefinition:
        if self.type in _TIME_PARTITIONS:
            return _TIME_PARTITIONS[self.type](start, timezone=self.timezone)
        return dg.TimeWindowPartitionsDefinition(
            start=start, fmt=self.format, cron_schedule=self.cron, timezone=self.timezone
        )


class Partitions(Dimension):
    """The partitions of a load; `multi` has several dimensions.

    Attributes:
        dimensions: the partitions of each dimension, by its name.
    """

    type: Literal[  # type: ignore[assignment]  # one more than a dimension
        "hourly", "daily", "weekly", "monthly", "cron", "static", "dynamic", "multi"
    ]
    dimensions: Mapping[str, Dimension] = {}

    def build(self) -> dg.PartitionsDefinition[Any]:
        """Return Dagster's definition, as `Dimension.build` does."""
        if self.type != "multi":
            return super().build()
        try:
            return dg.MultiPartitionsDefinition(
                {name: dimension.build() for name, dimension in self.dimensions.items()}
            )
        except Exception as error:
            raise ValueError(f"partitions.dimensions: {error}") from error


def _resolve_partitions(context: dg.ResolutionContext, model: Partitions) -> Partitions:
    return Partitions(**context.resolve_value(model.model_dump()))


def _partitions_schema() -> dict[str, Any]:
    """Return the JSON schema without references: Dagster cannot follow those of an attribute."""
    schema = Partitions.model_json_schema()
    dimension = schema.pop("$defs")[Dimension.__name__]
    schema["properties"]["dimensions"]["additionalProperties"] = dimension
    return schema


class Checks(dg.Resolvable, dg.Model):
    """The checks of the tables, by the name of the table.

    Attributes:
        unique: the columns that identify a row.
        max_rejected_ratio: the share of a CSV file's rows that may be rejected, from 0 to 1.
    """

    unique: Mapping[str, Sequence[str]] = {}
    max_rejected_ratio: Mapping[str, float] = {}


@dataclass
class WarehouseLoadComponent(dg.Component, dg.Resolvable):
    """Load the resources of a dlt source into the warehouse; the same as `@dlt_assets` in Python.

    Attributes:
        source: the dotted path of the source function, such as `orders_etl.source.orders_source`. Its
            parameter without a default gets the run's partitions.
        dataset: the dataset, which is also the first part of the asset keys.
        owner: the owning team, as `team:<name>`.
        pipeline: the name of the dlt pipeline; by default `<dataset>_pipeline`.
        arguments: more arguments of the source function.
        partitions: the partitions; without them a run loads everything.
        partition_value: the value of the partition column for a partition, such as `{key}.csv`.
        partitions_per_batch: how many partitions a run loads at a time; by default all.
        look_back: how many partitions before its own a run loads again, because rows arrive late.
        deps: upstream asset keys, by table, or by resource.
        automation: `eager`, or a cron schedule such as `@daily`; by default none.
        stale_after_hours: the age after which the tables are stale.
        checks: the checks of the tables.
        sample_partitions: the partitions that `etl run` loads, each a key or a range `first...last`.
    """

    source: str
    dataset: str
    owner: str
    pipeline: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    partitions: Annotated[
        Partitions | None,
        dg.Resolver(
            _resolve_partitions,
            model_field_type=Partitions,
            # Dagster adds a string as an alternative. Without it, `dg check yaml` names the invalid key.
            json_schema_extra={**_partitions_schema(), "anyOf": [{}]},
        ),
    ] = None
    partition_value: str = "{key}"
    partitions_per_batch: int | None = None
    look_back: int = 0
    deps: Mapping[str, Sequence[str]] = field(default_factory=dict)
    automation: str | None = None
    stale_after_hours: float = 7 * 24
    checks: Checks = field(default_factory=Checks)
    sample_partitions: Sequence[str] = ()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the assets and their checks.

        Raises:
            DagsterInvalidDefinitionError: with the file and the key that is invalid.
        """
        try:
            return self._build()
        except ValueError as error:
            file = context.path / "defs.yaml" if context.path.is_dir() else context.path
            raise dg.DagsterInvalidDefinitionError(f"{file}: attributes.{error}") from None
        except Exception as error:
            raise dg.DagsterInvalidDefinitionError(
                f"{context.path}: attributes.source: {self.source} raised {describe_error(error)}"
            ) from error

    def _build(self) -> dg.Definitions:
        partitions_def = self.partitions.build() if self.partitions else None
        function = _import_function(self.source)
        parameter = _partitions_parameter(function, self.arguments)
        if parameter and partitions_def is None:
            raise ValueError(f"partitions: {self.source} takes partitions, and none are defined")

        def source(values: Sequence[str]) -> DltSource:
            built = function(**({parameter: values} if parameter else {}), **self.arguments)
            if not isinstance(built, DltSource):
                raise ValueError(f"source: {self.source} does not return a dlt source")  # noqa: TRY004
            return built

        declared = source([])
        self._require_names(declared)
        self._validate_batches(partitions_def)

        @dlt_assets(
            dlt_source=declared,
            dlt_pipeline=warehouse.pipeline(
                self.pipeline or f"{self.dataset}_pipeline", dataset_name=self.dataset
            ),
            dagster_dlt_translator=WarehouseTranslator(
                owner=self.owner,
                deps={
                    table: [dg.AssetKey.from_user_string(key) for key in keys]
                    for table, keys in self.deps.items()
                },
                automation_condition=_automation_condition(self.automation),
                freshness_policy=dg.FreshnessPolicy.time_window(
                    fail_window=timedelta(hours=self.stale_after_hours)
                ),
                sample_partitions=self.sample_partitions,
            ),
            partitions_def=partitions_def,
            backfill_policy=_backfill_policy(partitions_def),
            name=f"{self.dataset}_{_first_table(declared)}",  # several may have one source
        )
        def assets(
            context: dg.AssetExecutionContext, dlt: WarehouseDltResource
        ) -> Iterator[object]:
            if partitions_def is None:
                yield from dlt.run(context, source([]))
            elif self.partitions_per_batch:
                yield from dlt.run_in_batches(
                    context, source, self.partitions_per_batch, self.look_back
                )
            else:
                keys: Sequence[str] = partitions_of(context, self.look_back)
                if self.partition_value != "{key}":
                    keys = [self.partition_value.format(key=key) for key in keys]
                yield from dlt.run(context, source(keys), partitions=keys)

        return dg.Definitions(assets=[assets], asset_checks=list(self._asset_checks()))

    def _validate_batches(self, partitions_def: dg.PartitionsDefinition[Any] | None) -> None:
        if self.partitions_per_batch is not None and self.partitions_per_batch < 1:
            raise ValueError("partitions_per_batch: must be at least 1")
        try:
            self.partition_value.format(key="")
        except (LookupError, ValueError) as error:
            raise ValueError("partition_value: the only placeholder is {key}") from error
        if self.look_back and not isinstance(partitions_def, dg.TimeWindowPartitionsDefinition):
            raise ValueError("look_back: needs partitions with time windows")
        if self.partitions_per_batch and self.partition_value != "{key}":
            raise ValueError("partitions_per_batch: not possible together with partition_value")

    def _require_names(self, source: DltSource) -> None:
        """Raise an error if `deps` or `checks` name what the source does not have."""
        resources = source.selected_resources
        tables = {warehouse.table_of(resource) for resource in resources.values()}
        _require_tables("deps", self.deps, resources.keys() | tables)
        for kind, tables_with_check in self.checks.model_dump().items():
            _require_tables(
                f"checks.{kind}", map(warehouse.normalize_name, tables_with_check), tables
            )

    def _asset_checks(self) -> Iterator[dg.AssetChecksDefinition]:
        for table, columns in self.checks.unique.items():
            yield build_unique_rows_check(asset_key(self.dataset, table), columns)
        for table, ratio in self.checks.max_rejected_ratio.items():
            yield build_rejected_rows_check(asset_key(self.dataset, table), ratio)


def _backfill_policy(
    partitions_def: dg.PartitionsDefinition[Any] | None,
) -> dg.BackfillPolicy | None:
    """Return one run for all partitions of a backfill; a run each for those with several dimensions."""
    if partitions_def is None or isinstance(partitions_def, dg.MultiPartitionsDefinition):
        return None
    return dg.BackfillPolicy.single_run()


def _import_function(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"source: {path!r} does not exist ({error})") from error
    if not callable(function):
        raise ValueError(f"source: {path} is not a function")  # noqa: TRY004
    return function  # type: ignore[no-any-return]


def _partitions_parameter(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str | None:
    """Return the parameter that gets the partitions: the one without a default and an argument."""
    parameters = inspect.signature(function).parameters
    if unknown := arguments.keys() - parameters.keys():
        raise ValueError(f"arguments: the source has no parameter {min(unknown)!r}")
    names = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in arguments
    ]
    if len(names) > 1:
        raise ValueError(f"arguments: the source needs a value for {names[1]!r}")
    return names[0] if names else None


def _first_table(source: DltSource) -> str:
    for resource in source.selected_resources.values():
        return warehouse.table_of(resource)
    raise ValueError(f"source: {source.name} has no resource")


def _require_tables(key: str, named: Iterable[str], tables: Iterable[str]) -> None:
    for name in named:
        if name not in tables:
            raise ValueError(
                f"{key}: the source has no {name!r}; it has {', '.join(sorted(tables))}"
            )


def _automation_condition(automation: str | None) -> dg.AutomationCondition[Any] | None:
    if automation is None:
        return None
    if automation == "eager":
        return dg.AutomationCondition.eager()
    try:
        return dg.AutomationCondition.on_cron(automation)
    except Exception as error:
        raise ValueError(f"automation: {automation!r} is not `eager` or a cron schedule") from error
