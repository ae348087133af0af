"""The URL of a database whose catalog is read, and the connection to it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from shared.redaction import redact
from shared.sources.database.base import DatabaseError

FORMS = {
    "postgresql": "postgresql://user:password@host:5432/database",
    "mysql": "mysql://user:password@host:3306/database",
    "mssql": "mssql://user:password@host:1433/database",
    "sqlite": "sqlite:///folder/file.db",
}
"""How the URL of a database is written."""

_ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}
_DRIVERS = {
    "postgresql": "psycopg2",
    "mysql": "pymysql",
    "mssql": "mssqlpython",
    "sqlite": "pysqlite",
}
_EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mssql": "mssql"}
_TIMEOUT_SECONDS = 10
_CONNECT_ARGUMENTS: Mapping[str, dict[str, Any]] = {
    "postgresql": {
        "connect_timeout": _TIMEOUT_SECONDS,
        "options": "-c default_transaction_read_only=on -c statement_timeout=60s -c lock_timeout=5s",
    },
    "mysql": {
        "connect_timeout": _TIMEOUT_SECONDS,
        "init_command": "SET SESSION TRANSACTION READ ONLY",
    },
    "mssql": {"timeout": 60},
}

_HINTS = {
    r"password|access denied|login failed|authentication|role ": "Check the user and the password; in a URL, @ is "
    "%40, / is %2F, : is %3A and % is %25",
    r"translate host|name or service|getaddrinfo|resolve|unknown.*host": "Check the name of the host",
    r"does not exist|unknown database|cannot open database": "Check the name of the database",
    r"refused|timed? ?out|timeout|unreachable|can't connect|unable to connect": "Check the host and the "
    "port, and whether a firewall is between",
}


def parse_url(url: str, folder: Path) -> sa.URL:
    """Return the URL with the driver that reads the catalog.

    Raises:
        DatabaseError: it is no URL of a supported database; nothing of the URL is repeated.
    """
    scheme, _, _ = url.partition("://")
    backend, _, driver = scheme.partition("+")
    backend = _ALIASES.get(backend, backend)
    if backend not in FORMS:
        shown = scheme if re.fullmatch(r"[a-z0-9+]{1,30}", scheme) else "this"
        raise DatabaseError(
            f"{shown}:// is no URL of a database that can be read. Write {', or '.join(FORMS.values())}"
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
    parsed = parsed.set(drivername=f"{backend}+{driver or _DRIVERS[backend]}")
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
        DatabaseError: it cannot connect, or the database refuses a query.
    """
    backend = url.get_backend_name()
    if backend == "sqlite":  # any other form creates a missing file
        url = url.set(
            database=f"file:{quote(url.database or '')}", query={"mode": "ro", "uri": "true"}
        )
    try:
        engine = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args=_CONNECT_ARGUMENTS.get(backend, {}),
        )
        with engine.connect() as connection:
            yield connection
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        missing = getattr(error, "name", "") or url.drivername
        extra = _EXTRAS.get(backend, "")
        raise DatabaseError(
            f"{backend}:// needs {missing}, which is not installed: uv add --dev 'shared[{extra}]'"
        ) from None
    except SQLAlchemyError as error:
        raise DatabaseError(_refusal(url, error)) from None


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
    step = steps[0] if steps else "Check the URL"
    return redact(f"{server_of(url)} cannot be read: {said.rstrip('.')}. {step}", [password])


def server_of(url: sa.URL) -> str:
    """Return the server and the database, for messages."""
    if url.get_backend_name() == "sqlite":
        return str(url.database).removeprefix("file:")
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{url.host}{port}/{url.database}"


def credentials_of(url: sa.URL) -> str:
    """Return the URL for a load, with its password."""
    backend = url.get_backend_name()
    if url.drivername == f"{backend}+{_DRIVERS[backend]}":
        url = url.set(drivername=backend)
    return url.render_as_string(hide_password=False)
