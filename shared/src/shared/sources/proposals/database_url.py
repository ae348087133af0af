"""The URL of a database whose catalog is read, and the connection to it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from shared.redaction import redact
from shared.sources.database.base import DatabaseError
from shared.sources.database.tls import tls_advice, with_verified_tls

FORMS = {
    "postgresql": "postgresql://user:password@host:5432/database",
    "mysql": "mysql://user:password@host:3306/database",
    "mssql": "mssql://user:password@host:1433/database",
    "sqlite": "sqlite:///folder/file.db",
}
"""How the URL of a database is written."""

_ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}
_MODULES = {
    "postgresql": ("psycopg2", "postgres"),
    "mysql": ("pymysql", "mysql"),
    "mssql": ("mssql_python", "mssql"),
}
"""The module of a driver, and the extra of `shared` that installs it."""

_CONNECT_SECONDS, _STATEMENT_SECONDS, _LOCK_SECONDS = 10, 60, 5
_HINTS = {
    r"password|access denied|login failed|authentication|role ": "Check the user and the password; in a URL, @ is "
    "%40, / is %2F, : is %3A and % is %25",
    r"translate host|name or service|getaddrinfo|resolve|unknown.*host": "Check the name of the host",
    r"does not exist|unknown database|cannot open database": "Check the name of the database",
    r"load the driver": "Install the system libraries that the driver needs",
    r"refused|timed? ?out|timeout|unreachable|can't connect|unable to connect": "Check the host and the "
    "port, and whether a firewall is between",
}


def parse_url(url: str, folder: Path) -> sa.URL:
    """Return the URL of a database, without the name of a driver.

    Raises:
        DatabaseError: it is not the URL of a supported database; nothing of the URL is repeated.
    """
    scheme, _, _ = url.partition("://")
    backend, _, _ = scheme.partition("+")
    backend = _ALIASES.get(backend, backend)
    if backend not in FORMS:
        shown = scheme if re.fullmatch(r"[a-z0-9+]{1,30}", scheme) else "this"
        raise DatabaseError(
            f"{shown}:// is not the URL of a database that can be read. Write {', or '.join(FORMS.values())}"
        )
    form = f"Write it as {FORMS[backend]}"
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):  # which repeat what may be a password
        parsed = None
    # After an @ in a password, the rest of it would be taken for the host.
    if parsed is None or (backend != "sqlite" and url.count("@") > 1):
        raise DatabaseError(
            f"The URL of the database cannot be read. {form}; in the user and the password, @ is %40, / is "
            "%2F, : is %3A and % is %25"
        )
    parsed = parsed.set(drivername=backend)  # a load chooses the driver
    if backend != "sqlite":
        has_host = parsed.host or "host" in parsed.query  # a socket's folder is a parameter
        if not has_host or not parsed.database:
            missing = "database" if has_host else "host"
            raise DatabaseError(f"The URL of the database names no {missing}. {form}")
        return parsed
    file = (folder / Path(parsed.database or "").expanduser()).resolve()
    if not file.is_file():
        raise DatabaseError(f"There is no file {file}. {form}, or sqlite:////folder/file.db")
    return parsed.set(database=str(file))


@contextmanager
def connected(url: sa.URL) -> Iterator[sa.Connection]:
    """Yield a connection that only reads, and commits each statement.

    Raises:
        DatabaseError: its driver is not installed, it cannot connect, or the database refuses a query.
    """
    backend = url.get_backend_name()
    module, extra = _MODULES.get(backend, ("sqlite3", ""))
    if not find_spec(module):
        raise DatabaseError(f"{backend}:// needs {module}: uv add --dev 'shared[{extra}]'")
    try:
        engine = _postgres_engine(url) if backend == "postgresql" else _other_engine(url)
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            if backend == "mysql":
                connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
            yield connection
    except SQLAlchemyError as error:
        raise DatabaseError(_refusal(url, error)) from None


def _postgres_engine(url: sa.URL) -> sa.Engine:
    """Return an engine that connects as a load does; each query has a limit."""
    import psycopg2

    dsn = with_verified_tls(credentials_of(url))
    connect = partial(
        psycopg2.connect,
        dsn,
        connect_timeout=_CONNECT_SECONDS,
        options=f"-c default_transaction_read_only=on -c lock_timeout={_LOCK_SECONDS}s "
        f"-c statement_timeout={_STATEMENT_SECONDS}s",
    )
    return sa.create_engine("postgresql+psycopg2://", creator=connect, poolclass=sa.NullPool)


def _other_engine(url: sa.URL) -> sa.Engine:
    from shared.sources.database.sqlalchemy.database import dialect_of
    from shared.sources.database.sqlalchemy.dialect import Timeouts

    return dialect_of(url, Timeouts(_STATEMENT_SECONDS, _LOCK_SECONDS)).engine()


def _refusal(url: sa.URL, error: SQLAlchemyError) -> str:
    """Return what the database says, on one line and without a secret, and the next step."""
    cause = getattr(error, "orig", None) or error
    said = " ".join(str(cause.args[-1] if cause.args else cause).split())
    if isinstance(cause.args[-1] if cause.args else "", bytes):  # as pymssql has it
        said = cause.args[-1].decode(errors="replace").partition("\n")[0]
    password = str(url.password or "")
    if password and password in said:
        said = type(cause).__name__
    steps = [step for pattern, step in _HINTS.items() if re.search(pattern, said, re.IGNORECASE)]
    step = tls_advice(said) or (steps[0] if steps else "Check the URL")
    return redact(
        f"{server_of(url)} cannot be read: {said.rstrip('.')}. {step.rstrip('.')}", [password]
    )


def server_of(url: sa.URL) -> str:
    """Return the server and the database, for messages."""
    if url.get_backend_name() == "sqlite":
        return str(url.database).removeprefix("file:")
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{url.host}{port}/{url.database}"


def credentials_of(url: sa.URL) -> str:
    """Return the URL for a load, with its password."""
    return url.render_as_string(hide_password=False)
