"""Where a database is, from dlt's settings and secrets, and how a load connects to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import dlt
from dlt.common.configuration import configspec, resolve_configuration
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.specs import BaseConfiguration, ConnectionStringCredentials

from shared.redaction import redact
from shared.sources.database.base import Database, DatabaseError


@configspec
class DatabaseConfiguration(BaseConfiguration):
    """The settings of a database source, in dlt's section `sources.<name>`.

    Attributes:
        credentials: the URL of the database, such as `postgresql://user:password@host/database`.
        statement_timeout_seconds: how long one query may take; the server stops it then.
        lock_timeout_seconds: how long a query waits for a table that somebody has locked.
    """

    credentials: ConnectionStringCredentials = None  # type: ignore[assignment]  # as dlt states secrets
    statement_timeout_seconds: float = 3600
    lock_timeout_seconds: float = 60


def database_configuration(name: str) -> DatabaseConfiguration:
    """Return the settings of a database source.

    Raises:
        DatabaseError: the credentials are missing or wrong; the message names the variable.
    """
    variable = f"SOURCES__{name.upper()}__CREDENTIALS"
    try:
        return resolve_configuration(DatabaseConfiguration(), sections=("sources", name))
    except ConfigurationException as error:
        is_set = dlt.secrets.get(f"sources.{name}.credentials", str) is not None
        text = str(error) if is_set else ""
        raise DatabaseError(
            f"The database of {name} is not known: set {variable} to its URL, such as "
            f"postgresql://user:password@host/database, or credentials in [sources.{name}] of "
            f".dlt/secrets.toml. {redact(text)}".strip()
        ) from None


@contextmanager
def open_database(name: str) -> Iterator[Database]:
    """Yield the database of a source, for the length of a load.

    Raises:
        DatabaseError: it is not known, or its driver is not installed.
    """
    yield database_of(database_configuration(name))


def database_of(configuration: DatabaseConfiguration) -> Database:
    """Return the database of a configuration. Nothing connects yet.

    Raises:
        DatabaseError: its driver is not installed, or the URL has another scheme.
    """
    url = configuration.credentials.to_url()
    backend = url.drivername.partition("+")[0]
    timeouts = (configuration.statement_timeout_seconds, configuration.lock_timeout_seconds)
    if backend in ("postgres", "postgresql"):
        from shared.sources.database.postgres.snapshot import PostgresDatabase

        return PostgresDatabase(
            url.set(drivername="postgresql").render_as_string(hide_password=False), *timeouts
        )
    raise DatabaseError(f"{backend}:// is not the URL of a database that can be loaded.")
