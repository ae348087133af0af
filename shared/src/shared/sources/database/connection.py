"""Where a database is, from dlt's settings and secrets, and how a load connects to it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dlt
from dlt.common.configuration import configspec, resolve_configuration
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.specs import BaseConfiguration, ConnectionStringCredentials
from dlt.common.typing import TSecretStrValue

from shared import settings
from shared.redaction import redact
from shared.sources.database.base import Database, DatabaseError
from shared.sources.database.tls import with_verified_tls
from shared.sources.dlt_settings import also_in_provider


@configspec
class DatabaseConfiguration(BaseConfiguration):
    """The settings of a database source, in dlt's section `sources.<name>`.

    Attributes:
        credentials: the URL of the database, such as `postgresql://user:password@host/database`.
        statement_timeout_seconds: how long one query may take; the server stops it then.
        lock_timeout_seconds: how long a query waits for a table that somebody has locked.
        ssh_tunnel: an SSH server that reaches the database, such as `ssh://user@bastion`.
        ssh_password: the password of the user there; secret.
        ssh_key_file: a private key; by default those of the SSH agent and of `~/.ssh`.
        mask_key: the key of the masks `Hash`; secret.
    """

    credentials: ConnectionStringCredentials = None  # type: ignore[assignment]  # as dlt states secrets
    statement_timeout_seconds: float = 3600
    lock_timeout_seconds: float = 60
    ssh_tunnel: str | None = None
    ssh_password: TSecretStrValue | None = None
    ssh_key_file: str | None = None
    mask_key: TSecretStrValue | None = None


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
            f".dlt/secrets.toml{also_in_provider('sources', name)}. {redact(text)}".strip()
        ) from None


@contextmanager
def open_database(configuration: DatabaseConfiguration) -> Iterator[Database]:
    """Yield a database, and keep its tunnel open for the length of the block.

    Raises:
        DatabaseError: its driver is not installed, or there is no tunnel.
    """
    url = configuration.credentials.to_native_representation()
    with ExitStack() as open_until_the_end:
        if configuration.ssh_tunnel:
            from shared.sources.database.tunnel import tunneled  # its package is an extra

            key_file = configuration.ssh_key_file
            url = open_until_the_end.enter_context(
                tunneled(
                    url,
                    configuration.ssh_tunnel,
                    known_hosts=settings.get_path("SFTP_KNOWN_HOSTS"),
                    password=configuration.ssh_password,
                    key_file=Path(key_file).expanduser() if key_file else None,
                )
            )
        yield _database(url, configuration)


def _database(url: str, configuration: DatabaseConfiguration) -> Database:
    scheme, _, address = url.partition("://")
    backend = scheme.partition("+")[0]
    timeouts = (configuration.statement_timeout_seconds, configuration.lock_timeout_seconds)
    try:
        if backend in ("postgres", "postgresql"):
            from shared.sources.database.postgres.snapshot import PostgresDatabase, server_of

            database = PostgresDatabase(with_verified_tls(f"postgresql://{address}"), *timeouts)
            # Through a tunnel, the URL has the tunnel's port.
            database.server = server_of(configuration.credentials)
            return database
        from shared.sources.database.sqlalchemy import SqlAlchemyDatabase

        return SqlAlchemyDatabase(url, *timeouts)
    except ImportError as error:
        raise DatabaseError(
            f"The driver of {backend} is not installed ({error.name}): add the extra of the package shared, "
            f"as in uv add 'shared[{backend}]'."
        ) from None
