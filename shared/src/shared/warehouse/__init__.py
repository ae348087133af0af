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
from shared.warehouse.locks import (
    LockHeldError,
    LockTimeoutError,
    WarehouseConnectionError,
    duckdb_path,
    exclusive_connection,
)
from shared.warehouse.pipeline import (
    ConcurrentSchemaChangeError,
    PipelineSpec,
    RowCountDropError,
    TableStats,
    WarehousePipeline,
    cleanup,
    pipeline,
)
from shared.warehouse.query import (
    QueryError,
    check_connection,
    print_query,
    query,
    read_only_connection,
)

__all__ = [
    "Column",
    "ConcurrentSchemaChangeError",
    "LoadRecord",
    "LockHeldError",
    "LockTimeoutError",
    "OutOfPartitionError",
    "PartitionScope",
    "PipelineSpec",
    "PushdownLoadJob",
    "QueryError",
    "RowCountDropError",
    "TableInfo",
    "TableStats",
    "WarehouseConfigError",
    "WarehouseConnectionError",
    "WarehousePipeline",
    "check_connection",
    "cleanup",
    "describe_location",
    "duckdb_path",
    "exclusive_connection",
    "list_tables",
    "pipeline",
    "print_query",
    "query",
    "quote_identifier",
    "read_only_connection",
    "warehouse_type",
]
