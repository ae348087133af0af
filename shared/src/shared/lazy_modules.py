"""Libraries that load data but declare nothing: each is imported when one of its names is first used.

A code location imports the modules that use them to declare its sources. Each code server would need a
second of CPU and the memory of the libraries, and most code servers never read a row. Annotations with
their types are strings, because Python evaluates others when it imports a module.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = [
    "dlt_pyarrow",
    "duckdb",
    "pyarrow",
    "pyarrow_compute",
    "pyarrow_parquet",
    "pyarrow_types",
]

if TYPE_CHECKING:
    import duckdb
    import pyarrow  # noqa: ICN001 - the module that is imported on use
    import pyarrow.compute as pyarrow_compute
    import pyarrow.parquet as pyarrow_parquet
    import pyarrow.types as pyarrow_types
    from dlt.common.libs import pyarrow as dlt_pyarrow
else:

    class LazyModule(ModuleType):
        """A module that is imported when one of its names is first used."""

        def __getattr__(self, name: str) -> Any:
            """Import the module, and return and keep what it has under a name."""
            value = getattr(import_module(self.__name__), name)
            setattr(self, name, value)
            return value

    dlt_pyarrow = LazyModule("dlt.common.libs.pyarrow")
    duckdb = LazyModule("duckdb")
    pyarrow = LazyModule("pyarrow")
    pyarrow_compute = LazyModule("pyarrow.compute")
    pyarrow_parquet = LazyModule("pyarrow.parquet")
    pyarrow_types = LazyModule("pyarrow.types")
