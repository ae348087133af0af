"""The warehouse as a destination of dlt."""

from functools import cache, cached_property
from pkgutil import resolve_name
from typing import Any

import dlt
from dlt.common.configuration import configspec
from dlt.common.destination import Destination, DestinationCapabilitiesContext
from dlt.common.normalizers.naming import NamingConvention
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration

from shared.sources.secrets_provider import without_provider
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

    # Each client of a load needs both, and dlt resolves them from all its settings each time. There is
    # no `__init__`: dlt reads its own defaults from the class's signature.
    @cached_property
    def _configurations(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _capabilities(self) -> dict[tuple[str, int | None] | None, DestinationCapabilitiesContext]:
        return {}

    def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
        """Return the complete configuration; a load resolves it once for a dataset."""
        key = repr((type(initial_config), dict(initial_config or {}), accept_partial))
        if key not in self._configurations:
            self._configurations[key] = super().configuration(initial_config, accept_partial)
        return self._configurations[key]

    def capabilities(
        self, config: Any = None, naming: NamingConvention | None = None
    ) -> DestinationCapabilitiesContext:
        """Return what the destination can do; a load resolves it once for a naming convention."""
        if config is not None:
            return super().capabilities(config, naming)
        key = (naming.name(), naming.max_length) if naming else None
        if key not in self._capabilities:
            with without_provider():  # importing a location needs them
                self._capabilities[key] = super().capabilities(None, naming)
        return self._capabilities[key].copy()  # a pipeline alters it

    @property
    def destination_type(self) -> str:
        """The type of dlt's destination, so that plain dlt can read a pipeline's stored state."""
        return f"dlt.destinations.{self.warehouse_type}"

    @cached_property
    def client_class(self) -> Any:
        """Dlt's client class for the type, with what the load in `state` needs."""
        mixin = _CLIENT_MIXINS.get(self.warehouse_type, "sql:SqlReplaceMixin")
        base = super().client_class  # type: ignore[safe-super]
        bases = (resolve_name(f"{__package__}.{mixin}"), base)
        return type(f"Warehouse{base.__name__}", bases, {"state": self.state})


@configspec(init=False)
class DuckDbFileConfiguration(DuckDbClientConfiguration):
    """Dlt's configuration of DuckDB, which describes its file without an import of SQLAlchemy."""

    def __str__(self) -> str:
        """Return the text that dlt reports after a load."""
        return f"duckdb:///{self.credentials.database}"


@cache
def destination_class(warehouse_type: str) -> Any:
    """Return dlt's destination class of a type, as the warehouse."""
    bases = (WarehouseDestination, getattr(dlt.destinations, warehouse_type))
    attributes: dict[str, Any] = {"warehouse_type": warehouse_type}
    if warehouse_type == "duckdb":
        attributes["spec"] = DuckDbFileConfiguration
    return type("WarehouseDestination", bases, attributes)
