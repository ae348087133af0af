"""What the engine raises. Messages name the variable, file, table or column, and the next step."""

import reprlib
from datetime import date, time
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

E = TypeVar("E", bound=BaseException)


class WarehouseError(Exception):
    """The root of all errors of the engine.

    Attributes:
        permanent: whether the same load fails again until somebody changes the code, the configuration or
            the data. Nothing retries such a load automatically.
    """

    permanent: ClassVar[bool] = False


class WarehouseConfigError(WarehouseError):
    """A variable that says where the warehouse is has a wrong value or none, or packages are missing."""

    permanent = True


class WarehouseNotFoundError(WarehouseError, FileNotFoundError):
    """The warehouse is a file, and nothing has been loaded yet."""


class WarehouseConnectionError(WarehouseError):
    """The server does not respond, refuses the user, or closed the connection."""


class MissingTableError(WarehouseError):
    """A query or a model reads tables that are not loaded; the message says which assets load them."""

    permanent = True


class LockLostError(WarehouseConnectionError):
    """The connection that owned a run's locks ended, so another run may load concurrently."""


class LockHeldError(WarehouseError):
    """Another run or program owns a lock."""

    def __init__(self, lock: str, owner: str) -> None:
        super().__init__(f"{lock} (owner: {owner})")


class LockTimeoutError(WarehouseError):
    """Another run or program owned a lock for more than `WAREHOUSE_WAIT_SECONDS`."""


class LoadPlanError(WarehouseError, ValueError):
    """A load is refused before its first request, because it could not be exact."""

    permanent = True


class DeclarationError(LoadPlanError, TypeError):
    """A pipeline or a source is not of the kind that can be loaded exactly; the message says what to write."""


class NotRunnableError(DeclarationError, AttributeError):
    """A declared pipeline was used as a pipeline of dlt, which can run."""


class OutOfPartitionError(WarehouseError):
    """Rows were extracted that belong to none of the partitions that a load replaces."""

    permanent = True


class RowCountDropError(WarehouseError):
    """A replace would leave a table with far fewer rows than it has."""

    permanent = True


class ConcurrentSchemaChangeError(WarehouseError):
    """Two concurrent runs gave one new column two types."""


class StateChangedError(WarehouseError):
    """Another load has stored a newer state of the pipeline, again and again."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(
            f"The state of {pipeline} changed while this run extracted, because other runs stored theirs "
            "concurrently; nothing was loaded. Run it again, or fewer of its partitions at once."
        )


class SchemaContractError(WarehouseError):
    """Upstream sent what a table's schema contract does not accept."""

    permanent = True


class MigrationError(WarehouseError):
    """A table cannot be changed as requested, or a value would change; nothing was changed."""


class RowValueError(WarehouseError):
    """A row of `table` has a value or a name that the table cannot store unchanged."""

    permanent = True

    def __init__(
        self, table: str, what: str, advice: str, dataset: str = "", run: str = ""
    ) -> None:
        super().__init__(table, what, advice, dataset, run)  # pickled by worker processes
        self.table = table

    def at(self, dataset: str, run: str) -> "RowValueError":
        """Return it with the dataset and the partitions of the load."""
        table, what, advice, *_ = self.args
        return RowValueError(table, what, advice, f"{dataset}.", run)

    def __str__(self) -> str:
        """Return table, what is wrong, and what to do."""
        table, what, advice, dataset, run = self.args
        return f"{dataset}{table}, {what}{run}; nothing was loaded. {advice}"


class UnknownTableError(MigrationError):
    """No pipeline has loaded the table that is to be changed."""


class QueryError(WarehouseError):
    """A text is not a query, cannot be translated, or is refused by the warehouse."""


class SelectError(QueryError):
    """The SELECT of a table is not valid, or the warehouse refuses it; the table is unchanged."""

    permanent = True


def find_cause(error: BaseException | None, kind: type[E]) -> E | None:
    """Return the error of a type among an error and its causes."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, kind):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


class _Repr(reprlib.Repr):
    """Short texts of values, with dates, times and decimals as people write them."""

    def repr1(self, x: Any, level: int) -> str:
        return str(x) if isinstance(x, date | time | Decimal) else super().repr1(x, level)


show_value = _Repr().repr
"""Return a value as text for a message, shortened if it is long."""
