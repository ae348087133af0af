"""The one place that knows where data lands: destination, credentials, working folders and locking.

| room | what it decides |
|---|---|
| destination | which destination of dlt's, by the environment alone, and what it can do |
| clients, parquet_files, push_down | how it replaces exactly the partitions of a run |
| locks | who may write when |
| pipeline | a run's pipeline, from its folder to its row counts |
| query | reading what has landed |
| tables | which tables have landed, with which columns, and by which load |
"""

from shared.warehouse.destination import (
    PartitionError,
    ReplacedRows,
    WarehouseSettingError,
    kind,
    whereabouts,
)
from shared.warehouse.locks import (
    HeldError,
    WarehouseBusyError,
    WarehouseUnreachableError,
    exclusive,
    path,
)
from shared.warehouse.pipeline import (
    Landed,
    PipelineDeclaration,
    SchemaConflictError,
    ShrinkingError,
    WarehousePipeline,
    close,
    pipeline,
)
from shared.warehouse.push_down import PushedDownJob
from shared.warehouse.query import QueryError, probe, query, reader, show
from shared.warehouse.tables import Column, Load, LoadedTable, loaded_tables, quoted

__all__ = [
    "Column",
    "HeldError",
    "Landed",
    "Load",
    "LoadedTable",
    "PartitionError",
    "PipelineDeclaration",
    "PushedDownJob",
    "QueryError",
    "ReplacedRows",
    "SchemaConflictError",
    "ShrinkingError",
    "WarehouseBusyError",
    "WarehousePipeline",
    "WarehouseSettingError",
    "WarehouseUnreachableError",
    "close",
    "exclusive",
    "kind",
    "loaded_tables",
    "path",
    "pipeline",
    "probe",
    "query",
    "quoted",
    "reader",
    "show",
    "whereabouts",
]
