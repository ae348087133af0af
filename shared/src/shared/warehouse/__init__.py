"""Exact loads with dlt, without Dagster: `load(plan_load(pipeline(...), source, partitions))`.

`pipeline` declares a `PipelineSpec`; `plan_load` decides, with `LoadOptions`, what a `LoadPlan` replaces;
`load` runs it and returns a `LoadResult`. `query` and `list_tables` read the warehouse.
`plan_migration` and `migrate` change a table that has rows. The errors of the
engine derive from `WarehouseError`.
"""

from shared.warehouse.catalog import LoadRecord, TableInfo, list_tables, quote_identifier
from shared.warehouse.destinations.configuration import warehouse_type
from shared.warehouse.destinations.datasets import (
    current_environment,
    dataset_prefix,
    stored_dataset,
)
from shared.warehouse.destinations.factory import describe_location
from shared.warehouse.dlt_internals import mark_unstated_dispositions
from shared.warehouse.duplicates import Duplicates, find_duplicates
from shared.warehouse.environment_datasets import drop_environment, list_environments
from shared.warehouse.errors import (
    ConcurrentSchemaChangeError,
    DeclarationError,
    LoadPlanError,
    LockHeldError,
    LockLostError,
    LockTimeoutError,
    MigrationError,
    MissingTableError,
    OutOfPartitionError,
    QueryError,
    RowCountDropError,
    RowValueError,
    SchemaContractError,
    SelectError,
    StateChangedError,
    WarehouseConfigError,
    WarehouseConnectionError,
    WarehouseError,
    WarehouseNotFoundError,
)
from shared.warehouse.load_run import LoadRun
from shared.warehouse.loaded_rows import ALL_ROWS, loaded_rows
from shared.warehouse.locks.file import duckdb_path, duckdb_path_of, exclusive_connection
from shared.warehouse.pipeline import PipelineSpec, pipeline, require_source, require_spec
from shared.warehouse.plan import LoadOptions, LoadPlan, plan_load
from shared.warehouse.query import (
    check_connection,
    find_tables,
    print_query,
    query,
    read_only_connection,
)
from shared.warehouse.replacement.partitioning import partition_scopes
from shared.warehouse.result import LoadResult
from shared.warehouse.run import load
from shared.warehouse.schema.change import TableChange, parse_type
from shared.warehouse.schema.migrate import Migration, migrate, plan_migration
from shared.warehouse.scope import PartitionScope
from shared.warehouse.statistics import TableStats
from shared.warehouse.tables import (
    declared_tables,
    filled_tables,
    known_schema,
    normalize_name,
    table_of,
    with_related_tables,
)
from shared.warehouse.write_lock import write_lock

mark_unstated_dispositions()

__all__ = [
    "ALL_ROWS",
    "ConcurrentSchemaChangeError",
    "DeclarationError",
    "Duplicates",
    "LoadOptions",
    "LoadPlan",
    "LoadPlanError",
    "LoadRecord",
    "LoadResult",
    "LoadRun",
    "LockHeldError",
    "LockLostError",
    "LockTimeoutError",
    "Migration",
    "MigrationError",
    "MissingTableError",
    "OutOfPartitionError",
    "PartitionScope",
    "PipelineSpec",
    "QueryError",
    "RowCountDropError",
    "RowValueError",
    "SchemaContractError",
    "SelectError",
    "StateChangedError",
    "TableChange",
    "TableInfo",
    "TableStats",
    "WarehouseConfigError",
    "WarehouseConnectionError",
    "WarehouseError",
    "WarehouseNotFoundError",
    "check_connection",
    "current_environment",
    "dataset_prefix",
    "declared_tables",
    "describe_location",
    "drop_environment",
    "duckdb_path",
    "duckdb_path_of",
    "exclusive_connection",
    "filled_tables",
    "find_duplicates",
    "find_tables",
    "known_schema",
    "list_environments",
    "list_tables",
    "load",
    "loaded_rows",
    "migrate",
    "normalize_name",
    "parse_type",
    "partition_scopes",
    "pipeline",
    "plan_load",
    "plan_migration",
    "print_query",
    "query",
    "quote_identifier",
    "read_only_connection",
    "require_source",
    "require_spec",
    "stored_dataset",
    "table_of",
    "warehouse_type",
    "with_related_tables",
    "write_lock",
]
