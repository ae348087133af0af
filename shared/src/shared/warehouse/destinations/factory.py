"""Where data lands: the one place that knows the destinations, their credentials and what they can do.

`WAREHOUSE_TYPE` names dlt's destination; all but the DuckDB file take its address and credentials from
dlt's own variables, `DESTINATION__WAREHOUSE__…`.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property, partial
from typing import Any

import dlt
from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    ConfigurationException,
    LookupTraces,
)
from dlt.common.data_writers.escape import escape_postgres_identifier
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import DEFAULT_FILE_LAYOUT, DestinationClientDwhConfiguration
from dlt.common.exceptions import MissingDependencyException
from dlt.common.schema import Schema
from dlt.common.storages.configuration import (
    FilesystemConfiguration,
    FilesystemConfigurationWithLocalFiles,
)

from shared import settings
from shared.redaction import redact
from shared.warehouse.locks import (
    DuckDbLockManager,
    DuckLakeLockManager,
    FileLockManager,
    LockManager,
    Log,
    PostgresLockManager,
    duckdb_path,
    no_log,
)

NAME = "warehouse"
"""The destination's name, hence the middle part of dlt's variables."""

_SETTINGS = f"DESTINATION__{NAME.upper()}__"

HEX_DECODE_SQL = {
    "duckdb": "decode(from_hex('{}'))",
    "postgres": "convert_from(decode('{}', 'hex'), 'UTF8')",
    "snowflake": "hex_decode_string('{}')",
    "bigquery": "safe_convert_bytes_to_string(from_hex('{}'))",
    "clickhouse": "unhex('{}')",
    "databricks": "decode(unhex('{}'), 'UTF-8')",
}
"""SQL for a text that is written in hexadecimal, by dialect."""

SUPPORTED_TYPES = (
    "duckdb",
    "postgres",
    "ducklake",
    "filesystem",
    "motherduck",
    "snowflake",
    "bigquery",
    "clickhouse",
    "databricks",
)
"""dlt's destinations that the warehouse can be."""


class OutOfPartitionError(Exception):
    """Rows were extracted that belong to none of the partitions a run replaces."""


class WarehouseConfigError(Exception):
    """A variable that says where the warehouse is has a wrong value, or none; the message names it."""


def warehouse_type() -> str:
    """Returns the warehouse's type, `WAREHOUSE_TYPE`.

    Raises:
        WarehouseConfigError: dlt has no such destination, or the project does not know it.
    """
    named = settings.get("WAREHOUSE_TYPE")
    if named not in SUPPORTED_TYPES:
        like = "".join(
            f" Did you mean {each}?" for each in get_close_matches(named, SUPPORTED_TYPES, 1)
        )
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {named!r}; it must be one of {', '.join(SUPPORTED_TYPES)}.{like}"
        )
    return named


@dataclass(frozen=True)
class PartitionScope:
    """The rows of a table that a run replaces: those with some values in its partition column."""

    resource: str
    column: str
    partition_keys: tuple[str, ...]

    def to_sql(
        self,
        dialect: str = "duckdb",
        escape: Callable[[str], str] = escape_postgres_identifier,
    ) -> str:
        """Returns the same in SQL."""
        values = ", ".join(_sql_literal(value, dialect) for value in self.partition_keys)
        return f"{escape(self.column)} IN ({values})"

    def excluding(self, values: Sequence[str]) -> "PartitionScope":
        """Returns those of the rows that have none of these values."""
        return replace(
            self, partition_keys=tuple(each for each in self.partition_keys if each not in values)
        )


def _sql_literal(key: str, dialect: str) -> str:
    """Returns SQL for a partition key that survives what dlt does to a merge's text.

    dlt splits that text at every semicolon, joins its lines, fills its braces and leaves the
    transaction out where it reads ALTER SCHEMA; a file may be named like any of these.
    """
    if re.fullmatch(r"[\w.:/-]*", key, re.ASCII):
        return f"'{key}'"
    return HEX_DECODE_SQL[dialect].format(key.encode().hex())


class WarehouseDestination:
    """What every destination of the warehouse adds to dlt's: it replaces exactly a run's partitions.

    dlt's delete-insert merge takes a `destination_scope`: the rows to delete before the new ones go
    in. Declared on a resource it would be stored in the schema and outlive its day (a later load
    would delete that day again), so it is set here, at load time only.
    """

    warehouse_type: str

    def __init__(
        self,
        partition_scopes: Mapping[str, PartitionScope] | None = None,
        *,
        log: Log = no_log,
        force_reload: bool = False,
        **kwargs: Any,
    ) -> None:
        """Takes the rows to replace, by table name, what `open` was given, and dlt's own arguments."""
        self.partition_scopes = dict(partition_scopes or {})
        self.pushed_down: set[str] = set()
        self.fingerprints: list[str] = []
        self.pre_commit_checks: list[Callable[[], None]] = []
        self.rows_inserted: Counter[str] = Counter()
        self.tables_in_package: set[str] = set()
        self.pending_table_chains: dict[str, Sequence[Any]] = {}
        self.verify_lock: Callable[[], None] = lambda: None
        self.force_reload = force_reload
        self.log = log
        super().__init__(destination_name=NAME, **kwargs)  # type: ignore[call-arg]

    def _raw_capabilities(self) -> Any:
        capabilities = super()._raw_capabilities()  # type: ignore[misc]
        # dlt's own choice, a text of INSERTs, is most of a load's time.
        capabilities.preferred_loader_file_format = "parquet"
        if self.warehouse_type in ("postgres", "filesystem"):
            # What replaces a run's rows there knows no other, whatever a resource may ask for.
            capabilities.supported_loader_file_formats = ["parquet", "reference"]
        if self.warehouse_type in ("duckdb", "motherduck", "ducklake", "postgres"):
            # dlt leaves this unset for them, and then commits a merge statement by statement: a load
            # that fails between its delete and its insert would lose the rows.
            capabilities.supports_transactions = True
        if self.warehouse_type == "postgres":
            # A reader whose snapshot is older than a TRUNCATE finds the table empty.
            capabilities.supports_truncate_command = False
        return capabilities

    @cached_property
    def _own_configuration(self) -> Any:
        this: Any = self
        return this.configuration(this.spec(), accept_partial=True)

    def capabilities(
        self, config: Any = None, naming: Any = None
    ) -> DestinationCapabilitiesContext:
        """Dlt's own, for which it need not resolve the configuration some twenty times a run."""
        found: DestinationCapabilitiesContext = super().capabilities(  # type: ignore[misc]
            config or self._own_configuration, naming
        )
        return found

    @property
    def destination_type(self) -> str:
        """Dlt's own type, so that a pipeline's stored state opens with plain dlt as well."""
        return f"dlt.destinations.{self.warehouse_type}"

    @property
    def client_class(self) -> Any:
        """Dlt's client for the destination, which knows this run's partitions."""
        # Here, for the clients know this module.
        from shared.warehouse.destinations.sql import client_class

        return client_class(super().client_class, self)  # type: ignore[misc]

    def tables_in_transaction(self, table: str) -> set[str]:
        """Returns the tables that this load merges in one transaction with a table, itself included."""
        rows = self.partition_scopes.get(table)
        return {table} | {
            name
            for name in self.tables_in_package - self.pushed_down
            if rows and name in self.partition_scopes
            if self.partition_scopes[name].resource == rows.resource
        }


@cache
def _destination_class(of: str) -> Any:
    base = getattr(dlt.destinations, of)
    # By __orig_base__ dlt knows whose arguments, hence whose defaults, are meant.
    return type(
        "WarehouseDestination",
        (WarehouseDestination, base),
        {"warehouse_type": of, "__orig_base__": base},
    )


def create_destination(
    partition_scopes: Mapping[str, PartitionScope] | None = None, **kwargs: Any
) -> WarehouseDestination:
    """Returns the warehouse as a destination of dlt; what `WarehouseDestination` takes is passed on.

    Raises:
        WarehouseConfigError: a variable is missing or wrong.
    """
    chosen = warehouse_type()
    if chosen == "duckdb":
        # A server whose type was forgotten must not become a file without a word.
        if ignored := sorted(
            name for name, value in os.environ.items() if name.startswith(_SETTINGS) and value
        ):
            raise WarehouseConfigError(
                f"{ignored[0]} is set, and WAREHOUSE_TYPE is duckdb, a file (WAREHOUSE_PATH) that "
                "takes none of it. Set WAREHOUSE_TYPE, or unset the other."
            )
        kwargs["credentials"] = {"database": str(duckdb_path())}
    if chosen != "filesystem":
        # A plain replace empties the table at the start, and is seen empty meanwhile.
        kwargs["replace_strategy"] = "insert-from-staging"
    if chosen not in ("duckdb", "postgres", "ducklake", "filesystem"):
        # Their runs take turns on one machine only, and dlt truncates the staging tables at each load:
        # another machine's rows would be lost from them without a word.
        host = re.sub(r"\W", "_", os.uname().nodename.lower())
        kwargs["staging_dataset_name_layout"] = f"%s_staging_{host}"
    made: WarehouseDestination = _destination_class(chosen)(partition_scopes, **kwargs)
    return made


def resolve_configuration(made: WarehouseDestination, dataset: str) -> Any:
    """Returns the destination's whole configuration, for a dataset.

    Raises:
        WarehouseConfigError: a variable is missing or wrong, or packages are.
    """
    this: Any = made
    try:
        named = this.spec()._bind_dataset_name(dataset)  # noqa: SLF001 - dlt has no public way
        configuration = this.configuration(named)
        this.client_class  # noqa: B018 - imports what the destination needs
    except ConfigFieldMissingException as error:
        missing = [each for each in _variables(error.traces) if each.startswith(_SETTINGS)]
        # Of an address that is missing as a whole, dlt names every part.
        first = missing[0] if missing else f"{_SETTINGS}…"
        named = first if len(set(missing)) <= 1 else first.rpartition("__")[0]
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {made.warehouse_type}, and {named} is not set; nothing was asked or loaded. "
            f"dlt's documentation of the destination {made.warehouse_type} says what it takes."
        ) from None
    except (ImportError, MissingDependencyException) as error:
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {made.warehouse_type}, whose packages are missing: "
            f"{str(error).strip().splitlines()[0]}. Add them: uv add --package shared "
            f"'dlt[{made.warehouse_type}]'"
        ) from None
    except (ConfigurationException, ValueError) as error:
        told = redact(str(error).strip())
        raise WarehouseConfigError(
            f"WAREHOUSE_TYPE is {made.warehouse_type}, and one of the variables {_SETTINGS}… is wrong: {told}"
        ) from None
    driver = getattr(configuration.credentials, "drivername", None)
    if made.warehouse_type == "postgres" and driver not in ("postgres", "postgresql"):
        raise WarehouseConfigError(
            f"{_SETTINGS}CREDENTIALS must begin with postgresql://, without a driver; it says {driver}."
        )
    if made.warehouse_type == "filesystem" and configuration.layout != DEFAULT_FILE_LAYOUT:
        raise WarehouseConfigError(
            f"{_SETTINGS}LAYOUT is {configuration.layout}; what a load replaces would not be found "
            "by it. Unset it."
        )
    if made.warehouse_type == "ducklake":
        _require_shared_storage(configuration)
    return configuration


def _variables(traces: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yields the environment variables that dlt has looked for, those of nested settings as well."""
    for found in traces.values():
        for each in found:
            if isinstance(each, LookupTraces):
                yield from _variables(each.traces)
            elif each.provider == "Environment Variables":
                yield each.key


def _require_shared_storage(configuration: Any) -> None:
    """Refuses what dlt takes without a word where a part of a DuckLake is not set."""
    address, credentials = f"{_SETTINGS}CREDENTIALS__", configuration.credentials
    driver = credentials.catalog.drivername
    if driver not in ("postgres", "postgresql"):
        raise WarehouseConfigError(
            f"DuckLake's catalog is {driver}, and must be a Postgres database: a file loses the loads "
            f"of several writers. Set {address}CATALOG to postgresql://…; nothing was asked or loaded."
        )
    if isinstance(credentials.storage, FilesystemConfigurationWithLocalFiles):
        raise WarehouseConfigError(
            "DuckLake's files would land in the working folder of each run. Set "
            f"{address}STORAGE__BUCKET_URL to s3://…, or to a folder that all machines share; nothing "
            "was asked or loaded."
        )


def create_lock_manager(
    made: WarehouseDestination, configuration: DestinationClientDwhConfiguration, log: Log
) -> LockManager:
    """Returns what orders the runs of the configuration's dataset."""
    dataset, credentials = str(configuration.dataset_name), configuration.credentials
    this: Any = credentials
    who = f"pid {os.getpid()} of {os.uname().nodename}"
    if made.warehouse_type == "duckdb":
        return DuckDbLockManager(dataset, log)
    if made.warehouse_type == "postgres":
        return PostgresLockManager(dataset, log, this.to_native_representation(), who)
    if made.warehouse_type == "ducklake":
        address = str(this.catalog.to_native_representation()).partition("://")[2]
        return DuckLakeLockManager(
            dataset,
            log,
            f"postgresql://{address}",
            who,
            schema=this.metadata_schema or this.ducklake_name,
            make=partial(_attach, made, configuration),
        )
    return FileLockManager(dataset, log)


def _attach(made: Any, configuration: Any) -> None:
    """Opens the lake, which makes it where it is not there."""
    with made.client(Schema("lake"), configuration).sql_client:
        pass


def database_name(made: WarehouseDestination, configuration: Any) -> str:
    """Returns what people call the warehouse: the file's stem, the database, or the folder."""
    if made.warehouse_type == "duckdb":
        return duckdb_path().stem
    if isinstance(configuration, FilesystemConfiguration):
        return redact(str(configuration.bucket_url))
    return str(getattr(configuration.credentials, "database", None) or made.warehouse_type)


def describe_location() -> str:
    """Returns where the warehouse is, for people: the file, or the database and its host.

    Raises:
        WarehouseConfigError: a variable is missing or wrong.
    """
    made = create_destination()
    configuration = resolve_configuration(made, "public")
    if made.warehouse_type == "duckdb":
        return str(duckdb_path())
    host = getattr(configuration.credentials, "host", None)
    return f"{made.warehouse_type} {database_name(made, configuration)}" + (
        f" on {host}" if host else ""
    )
