"""What one load replaces, decided before the first request."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlt.common.schema.typing import TSchemaContractDict
from dlt.extract import DltSource

from shared.sources.partitions import PartitionKey
from shared.warehouse.errors import LoadPlanError
from shared.warehouse.locks.base import LockScope
from shared.warehouse.pipeline import PipelineSpec, require_source, require_spec
from shared.warehouse.replacement.dispositions import apply_dispositions, reject_split_cursors
from shared.warehouse.replacement.partitioning import partition_scopes
from shared.warehouse.rows.normalizer import reject_colliding_columns, with_normalizers
from shared.warehouse.scope import PartitionScope
from shared.warehouse.tables import reject_colliding_tables, reject_split_tables

DEFAULT_SCHEMA_CONTRACT: TSchemaContractDict = {
    "tables": "evolve",
    "columns": "evolve",
    "data_type": "freeze",
}
"""For sources that state none: new columns are added, a value of another type fails the load."""

_CHANGES_SCOPE = {"columns", "primary_key", "refresh", "table_name", "write_disposition"}
"""Arguments of `dlt.Pipeline.extract` that change what a load by partition replaces."""


@dataclass(frozen=True)
class LoadOptions:
    """What a run may decide about a load.

    Attributes:
        run_id: names the working directory, for people who look into it after a failure.
        min_row_ratio: the share of its rows that a table with the write disposition `replace` must keep.
        force_reload: whether files are read although the table has their rows, unchanged.
        allow_partial: whether the source may defer some partitions to a later load.
        pushdown_enabled: whether the source may have the warehouse read files itself.
        full_refresh: the resources that load all rows again and replace their tables, in this run only.
        resources: the resources to load, of those that the source selects; by default all of them.
        extract_arguments: passed on to `dlt.Pipeline.extract`, such as `schema_contract`.
    """

    run_id: str = "load"
    min_row_ratio: float = 0.0
    force_reload: bool = False
    allow_partial: bool = False
    pushdown_enabled: bool = True
    full_refresh: Collection[str] = ()
    resources: Sequence[str] | None = None
    extract_arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadPlan:
    """One load: what it extracts, and what it replaces.

    Attributes:
        spec: the pipeline.
        source: what to extract. `load` extracts a copy, so a plan can be loaded again.
        partitions: what the run loads, if it is not everything.
        scopes: the rows to replace, by resource; others load by their write disposition.
        options: what the run decides.
        replaced_by_default: the resources that state no write disposition and replace their tables.
    """

    spec: PipelineSpec
    source: DltSource
    partitions: Sequence[PartitionKey]
    scopes: Mapping[str, PartitionScope]
    options: LoadOptions
    replaced_by_default: frozenset[str] = frozenset()

    @property
    def lock_scope(self) -> LockScope:
        """What no other run may load at the same time: the partitions, or the pipeline."""
        units: dict[str, Sequence[str]] = {
            name: scope.partitions for name, scope in self.scopes.items()
        }
        if self.source.selected_resources.keys() - units.keys():
            # An unpartitioned table, and the cursor of an incremental one, belong to the pipeline.
            units[f"pipeline {self.spec.pipeline_name}"] = ()
        return units


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
        partitions: the partitions whose rows are replaced. A `PartitionKey` has a time window or
            dimensions; any other text is a value of the partition column.
        options: what the run decides.

    Raises:
        DeclarationError: the pipeline was created by `dlt.pipeline()`, or the source is not a source.
        LoadPlanError: a rerun would not be exact: see `partition_scopes`; a resource is loaded by
            partition and the options change its write disposition; the selected resources leave out one
            that shares a cursor with them; or two names are one table, see `reject_colliding_tables`.
    """
    require_spec(spec)
    require_source(source)
    # A copy: extraction alters a source's schema, and a second load would fail on it (dagster#34052).
    source, options = source.clone(), options or LoadOptions()
    source.schema = with_normalizers(source.schema)
    reject_colliding_tables(source)
    reject_colliding_columns(source)
    if source.schema_contract is None:
        source.schema_contract = DEFAULT_SCHEMA_CONTRACT
    if options.resources is not None:
        reject_split_cursors(source, options.resources)
        reject_split_tables(source, options.resources)
        source = source.with_resources(*options.resources)
    keys = [key if isinstance(key, PartitionKey) else PartitionKey(key) for key in partitions or ()]
    scopes = partition_scopes(source, keys)
    if scopes and (changed := _CHANGES_SCOPE & options.extract_arguments.keys()):
        raise LoadPlanError(
            f"{', '.join(scopes)} are loaded by partition, and dlt.run was called with "
            f"{', '.join(sorted(changed))}, which would change rows of other partitions. Remove it."
        )
    requested = options.extract_arguments.get("write_disposition")
    by_default = apply_dispositions(source, scopes, requested)
    return LoadPlan(spec, source, keys, scopes, options, by_default)
