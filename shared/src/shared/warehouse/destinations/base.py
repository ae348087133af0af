"""The warehouse as a destination of dlt."""

from functools import cache
from typing import Any

import dlt
from dlt.common.destination import Destination

from shared.warehouse.scope import LoadState


class WarehouseDestination(Destination[Any, Any]):
    """What the warehouse adds to dlt's destination of some type: a client that replaces exactly."""

    warehouse_type: str
    state: LoadState

    @property
    def destination_type(self) -> str:
        """The type of dlt's destination, so that plain dlt can read a pipeline's stored state."""
        return f"dlt.destinations.{self.warehouse_type}"

    @property
    def client_class(self) -> Any:
        """Dlt's client class for the type, with what the load in `state` needs."""
        base = super().client_class  # type: ignore[safe-super]
        bases = (_client_mixin(self.warehouse_type), base)
        return type(f"Warehouse{base.__name__}", bases, {"state": self.state})


def _client_mixin(warehouse_type: str) -> type:
    """Return the engine's mixin. Its module is imported here, because it needs the engine's driver."""
    if warehouse_type == "duckdb":
        from shared.warehouse.destinations.duckdb import DuckDbReplaceMixin

        return DuckDbReplaceMixin
    if warehouse_type == "ducklake":
        from shared.warehouse.destinations.ducklake import DuckLakeReplaceMixin

        return DuckLakeReplaceMixin
    if warehouse_type == "filesystem":
        from shared.warehouse.destinations.filesystem import FilesystemReplaceMixin

        return FilesystemReplaceMixin
    if warehouse_type == "postgres":
        from shared.warehouse.destinations.postgres import PostgresReplaceMixin

        return PostgresReplaceMixin
    from shared.warehouse.destinations.sql import SqlReplaceMixin

    return SqlReplaceMixin


@cache
def destination_class(warehouse_type: str) -> Any:
    """Return dlt's destination class of a type, as the warehouse."""
    bases = (WarehouseDestination, getattr(dlt.destinations, warehouse_type))
    return type("WarehouseDestination", bases, {"warehouse_type": warehouse_type})
