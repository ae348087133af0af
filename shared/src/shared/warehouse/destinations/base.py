"""The warehouse as a destination of dlt."""

from functools import cache
from pkgutil import resolve_name
from typing import Any

import dlt
from dlt.common.destination import Destination

from shared.warehouse.scope import LoadState

_CLIENT_MIXINS = {
    "duckdb": "duckdb:DuckDbReplaceMixin",
    "ducklake": "ducklake:DuckLakeReplaceMixin",
    "filesystem": "filesystem:FilesystemReplaceMixin",
    "postgres": "postgres:PostgresReplaceMixin",
}
"""What each engine adds to dlt's client. Its module is imported on use, because it needs a driver."""


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
        mixin = _CLIENT_MIXINS.get(self.warehouse_type, "sql:SqlReplaceMixin")
        base = super().client_class  # type: ignore[safe-super]
        bases = (resolve_name(f"{__package__}.{mixin}"), base)
        return type(f"Warehouse{base.__name__}", bases, {"state": self.state})


@cache
def destination_class(warehouse_type: str) -> Any:
    """Return dlt's destination class of a type, as the warehouse."""
    bases = (WarehouseDestination, getattr(dlt.destinations, warehouse_type))
    return type("WarehouseDestination", bases, {"warehouse_type": warehouse_type})
