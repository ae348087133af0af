"""Exact loads with dlt, without Dagster: `load(plan_load(pipeline(...), source, partitions))`.

`pipeline` declares a `PipelineSpec`; `plan_load` decides, with `LoadOptions`, what a `LoadPlan` replaces;
`load` runs it and returns a `LoadResult`. `query` and `list_tables` read the warehouse. The errors of the
engine derive from `WarehouseError`.
"""

from shared.warehouse.catalog import LoadRecord, TableInfo, list_tables, quote_identifier
from shared.warehouse.destinations.configuration import warehouse_type
from shared.warehouse.destinations.factory import describe_location
from shared.warehouse.dlt_internals import mark_unstated_dispositions
from shared.warehouse.errors import (
    ConcurrentSchemaChangeError,
    LoadPlanError,
    LockHeldError,
    LockLostError,
    LockTimeoutError,
    OutOfPartitionError,
    QueryError,
    RowCountDropError,
    SchemaContractError,
    StateChangedError,
    WarehouseConfigError,
    WarehouseConnectionError,
    WarehouseError,
    WarehouseNotFoundError,
)
from shared.warehouse.locks.file import duckdb_path, exclusive_connection
from shared.warehouse.pipeline import PipelineSpec, pipeline
from shared.warehouse.plan import LoadOptions, LoadPlan, partition_scopes, plan_load
from shared.warehouse.query import check_connection, print_query, query, read_only_connection
from shared.warehouse.run import LoadResult, LoadRun, load
from shared.warehouse.scope import PartitionScope
from shared.warehouse.statistics import TableStats

mark_unstated_dispositions()

__all__ = [
    "ConcurrentSchemaChangeError",
    "LoadOptions",
    "LoadPlan",
    "LoadPlanError",
    "LoadRecord",
    "LoadResult",
    "LoadRun",
    "LockHeldError",
    "LockLostError",
    "LockTimeoutError",
    "OutOfPartitionError",
    "PartitionScope",
    "PipelineSpec",
    "QueryError",
    "RowCountDropError",
    "SchemaContractError",
    "StateChangedError",
    "TableInfo",
    "TableStats",
    "WarehouseConfigError",
    "WarehouseConnectionError",
    "WarehouseError",
    "WarehouseNotFoundError",
    "check_connection",
    "describe_location",
    "duckdb_path",
    "exclusive_connection",
    "list_tables",
    "load",
    "partition_scopes",
    "pipeline",
    "plan_load",
    "print_query",
    "query",
    "quote_identifier",
    "read_only_connection",
    "warehouse_type",
]
