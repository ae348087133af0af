"""What one load replaces, decided before the first request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlt.common.schema.typing import TSchemaContractDict
from dlt.extract import DltSource

from shared.sources.hints import REPLACE_PARTITIONS
from shared.sources.protocol import COMPANION_TABLES_HINT
from shared.warehouse.errors import LoadPlanError
from shared.warehouse.locks.base import LockScope
from shared.warehouse.pipeline import PipelineSpec
from shared.warehouse.row_normalizer import reject_declared_collisions, with_normalizers
from shared.warehouse.scope import PartitionScope

DEFAULT_SCHEMA_CONTRACT: TSchemaContractDict = {
    "tables": "evolve",
    "columns": "evolve",
    "data_type": "freeze",
}
"""For sources that state none: new columns are added, a value of another type fails the load."""

_CHANGES_SCOPE = {"columns", "primary_key", "refresh", "table_name", "write_disposition"}
"""Arguments of `dlt.Pipeline.extract` that change what a load by partition replaces."""

_DISPOSITION = REPLACE_PARTITIONS["write_disposition"]
"""The write disposition of a resource that is loaded by partition."""


@dataclass(frozen=True)
class LoadOptions:
    """What a run may decide about a load.

    Attributes:
        run_id: names the working directory, for people who look into it after a failure.
        min_row_ratio: the share of its rows that a table with the write disposition `replace` must keep.
        force_reload: whether files are read although the table has their rows, unchanged.
        allow_partial: whether the source may defer some partitions to a later load.
        pushdown_enabled: whether the source may have the warehouse read files itself.
        extract_arguments: passed on to `dlt.Pipeline.extract`, such as `schema_contract`.
    """

    run_id: str = "load"
    min_row_ratio: float = 0.0
    force_reload: bool = False
    allow_partial: bool = False
    pushdown_enabled: bool = True
    extract_arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadPlan:
    """One load: what it extracts, and what it replaces.

    Attributes:
        spec: the pipeline.
        source: what to extract. `load` extracts a copy, so a plan can be loaded again.
        scopes: the rows to replace, by table; tables that are not in it load by their write disposition.
        options: what the run decides.
    """

    spec: PipelineSpec
    source: DltSource
    scopes: Mapping[str, PartitionScope]
    options: LoadOptions

    @property
    def lock_scope(self) -> LockScope:
        """What no other run may load at the same time: the partitions, or the pipeline."""
        units: dict[str, Sequence[str]] = {
            scope.resource: scope.partition_keys for scope in self.scopes.values()
        }
        if self.source.selected_resources.keys() - units.keys():
            # An unpartitioned table, and the cursor of an incremental one, belong to the pipeline.
            units[f"pipeline {self.spec.pipeline_name}"] = ()
        return units

    @property
    def reported_tables(self) -> frozenset[str]:
        """The tables that the result describes: one for each resource with a fixed table name."""
        naming = self.source.schema.naming
        return frozenset(
            naming.normalize_table_identifier(resource.table_name)
            for resource in self.source.selected_resources.values()
            if isinstance(resource.table_name, str)
        )


def plan_load(
    spec: PipelineSpec,
    source: DltSource,
    partitions: Sequence[str] | None = None,
    options: LoadOptions | None = None,
) -> LoadPlan:
    """Decide what a load replaces. No request is sent and nothing is written.

    Args:
        spec: the pipeline, declared with `warehouse.pipeline`.
        source: what to extract. A source without a schema contract gets `DEFAULT_SCHEMA_CONTRACT`.
        partitions: values of the partition column whose rows are replaced.
        options: what the run decides.

    Raises:
        TypeError: the pipeline was created by `dlt.pipeline()`, or the source is not a source.
        LoadPlanError: a rerun would not be exact: see `partition_scopes`; or a resource is loaded by
            partition and the options change its write disposition.
    """
    if not isinstance(spec, PipelineSpec):
        raise TypeError(
            f"{spec} was created by dlt.pipeline(), which owns a working directory from the start; "
            "declare it with shared.warehouse.pipeline()."
        )
    if not isinstance(source, DltSource):
        raise TypeError(
            f"{source} is not a dlt source: return the resource from a @dlt.source function."
        )
    # A copy: extraction alters a source's schema, and a second load would fail on it (dagster#34052).
    source = source.clone()
    source.schema = with_normalizers(source.schema)
    reject_declared_collisions(source)
    if source.schema_contract is None:
        source.schema_contract = DEFAULT_SCHEMA_CONTRACT
    scopes, options = partition_scopes(source, partitions), options or LoadOptions()
    if scopes and (changed := _CHANGES_SCOPE & options.extract_arguments.keys()):
        raise LoadPlanError(
            f"{', '.join(scopes)} are loaded by partition, and dlt.run was called with "
            f"{', '.join(sorted(changed))}, which would change rows of other partitions. Remove it."
        )
    return LoadPlan(spec, source, scopes, options)


def partition_scopes(
    source: DltSource, partitions: Sequence[str] | None
) -> Mapping[str, PartitionScope]:
    """Return the rows that a load replaces, by table; tables without a partition column are left out.

    Raises:
        LoadPlanError: a resource marks several partition columns; it is loaded by partition and none is
            named; or its write disposition would not replace them.
    """
    scopes: dict[str, PartitionScope] = {}
    unscoped: dict[str, str] = {}
    naming = source.schema.naming
    for resource in source.selected_resources.values():
        schema = resource.compute_table_schema()
        hinted = [name for name, hints in schema["columns"].items() if hints.get("partition")]
        if not hinted:
            unscoped[resource.name] = str(schema.get("write_disposition"))
            continue
        if len(hinted) > 1:
            raise LoadPlanError(
                f"{resource.name} marks {', '.join(hinted)} as its partition: a load replaces by one "
                "column. Mark one of them; a resource may add a column that joins their values."
            )
        (partition_column,) = hinted
        disposition = (schema.get("write_disposition"), schema.get("x-merge-strategy"))
        if disposition != tuple(_DISPOSITION.values()):
            raise LoadPlanError(
                f"{resource.name} marks {partition_column} as its partition: its write disposition "
                f"must be {_DISPOSITION}, or a rerun adds its rows again."
            )
        if not partitions:
            raise LoadPlanError(
                f"{resource.name} is loaded by {partition_column}: run it for a partition, or pass "
                "`partitions=[...]` to dlt.run, so that exactly those rows are replaced."
            )
        column = naming.normalize_identifier(partition_column)
        companions: Sequence[str] = schema.get(COMPANION_TABLES_HINT, [])  # type: ignore[assignment]
        for table in (str(resource.table_name), *companions):
            scopes[naming.normalize_table_identifier(table)] = PartitionScope(
                resource.name, column, tuple(partitions)
            )
    for name, write_disposition in unscoped.items() if partitions else ():
        # Together with a partitioned resource, `replace` loads a snapshot with each partition.
        if write_disposition == "append" or (write_disposition == "replace" and not scopes):
            _reject_unscoped(name, write_disposition)
    return scopes


def _reject_unscoped(resource: str, write_disposition: str) -> None:
    """Reject a resource without a partition column whose rerun of a partition is not exact."""
    effects = {
        "append": "add its rows again",
        "replace": "delete the rows of the other partitions",
    }
    raise LoadPlanError(
        f"{resource} is loaded by partition with the write disposition {write_disposition}: a rerun would "
        f"{effects[write_disposition]}. Mark its partition column with dlt's hint `partition` and set the "
        f"write disposition {_DISPOSITION}, or load it in an asset without partitions."
    )
