"""The one place that knows where data lands: destination, credentials, working folders and locking.

| room | what it decides |
|---|---|
| destination | which destination of dlt's, by the environment alone, and what it can do |
| clients, parquet_files, pushdown_query | how it replaces exactly the partitions of a run |
| locks | who may write when |
| pipeline | a run's pipeline, from its folder to its row counts |
| query | reading what has landed |
| tables | which tables have landed, with which columns, and by which load |
"""

from shared.warehouse.catalog import Column, LoadRecord, TableInfo, list_tables, quote_identifier
from shared.warehouse.destinations.duckdb import PushdownLoadJob
from shared.warehouse.destinations.factory import (
    OutOfPartitionError,
    PartitionScope,
    WarehouseConfigError,
    describe_location,
    warehouse_type,
)
from shared.warehouse.guards import RowCountDropError
from shared.warehouse.load import DLT_SETTINGS, LoadResult, LoadRun, SchemaContractError, load
from shared.warehouse.locks import (
    LockHeldError,
    LockTimeoutError,
    WarehouseConnectionError,
    duckdb_path,
    exclusive_connection,
)
from shared.warehouse.pipeline import PipelineSpec, pipeline
from shared.warehouse.plan import LoadOptions, LoadPlan, partition_scopes, plan_load
from shared.warehouse.query import (
    QueryError,
    check_connection,
    print_query,
    query,
    read_only_connection,
)
from shared.warehouse.schema_sync import ConcurrentSchemaChangeError
from shared.warehouse.statistics import TableStats

__all__ = [
    "DLT_SETTINGS",
    "Column",
    "ConcurrentSchemaChangeError",
    "LoadOptions",
    "LoadPlan",
    "LoadRecord",
    "LoadResult",
    "LoadRun",
    "LockHeldError",
    "LockTimeoutError",
    "OutOfPartitionError",
    "PartitionScope",
    "PipelineSpec",
    "PushdownLoadJob",
    "QueryError",
    "RowCountDropError",
    "SchemaContractError",
    "TableInfo",
    "TableStats",
    "WarehouseConfigError",
    "WarehouseConnectionError",
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
