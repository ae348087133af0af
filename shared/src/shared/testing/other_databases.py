"""Databases of MariaDB and SQLite as their applications see them; Postgres has `source_database`."""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy

from shared.sources.database import Table
from shared.sources.database.sqlalchemy import SqlAlchemyDatabase
from shared.sources.database.sqlalchemy.database import SqlAlchemySnapshot
from shared.testing.mariadb_server import MariaDbServer


class MariaDbDatabase:
    """A database of a MariaDB server, and a connection to it that commits each statement."""

    def __init__(self, server: MariaDbServer) -> None:
        """Create an empty database and connect to it."""
        self.server, self.url = server, server.database()
        self.name = self.url.rpartition("/")[2]
        self.connection = self.connect()
        self.run("SET sql_mode = ''")  # as applications with zero dates have it

    def connect(self) -> Any:
        """Return another connection."""
        return self.server.connect(self.name)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def run(self, sql: str, connection: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement, by default over the connection that commits it, and return its rows."""
        with (connection or self.connection).cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def as_user(self, password: str = "a-password-of-tests") -> str:
        """Return the URL of a user without rights, with that password or a wrong one."""
        user = f"u{self.name[-20:]}"
        self.run(f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY 'a-password-of-tests'")
        return self.url.replace("root@", f"{user}:{password}@")

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Return the rows that a source reads of a table."""
        with SqlAlchemyDatabase(self.url).snapshot() as snapshot:
            return rows_of(snapshot, table)


class SqliteDatabase:
    """A file of SQLite, and a connection to it that commits each statement."""

    def __init__(self, path: Path) -> None:
        """Create the file if it does not exist, and open it."""
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement with values for its `?`, and return its rows."""
        return self.connection.execute(sql, values).fetchall()

    def open(self, lock_timeout: float = 60) -> SqlAlchemyDatabase:
        """Return the file as a source opens it."""
        url = sqlalchemy.URL.create("sqlite", database=str(self.path))
        return SqlAlchemyDatabase(url, lock_timeout_seconds=lock_timeout)

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Return the rows that a source reads of a table."""
        with self.open().snapshot() as snapshot:
            return rows_of(snapshot, table)


def rows_of(snapshot: SqlAlchemySnapshot, table: Table, where: str = "") -> list[dict[str, Any]]:
    """Return the rows of a snapshot's table for which a condition holds; by default all."""
    batches = snapshot.read(table, snapshot.describe(table), where)
    return [row for batch in batches for row in batch.to_pylist()]
