"""DuckLake: DuckDB's connections to it are reused."""

import os
from collections import defaultdict
from functools import partial
from typing import Any

from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
from duckdb import DuckDBPyConnection

from shared.warehouse.destinations.sql import SqlReplaceMixin
from shared.warehouse.dlt_internals import borrow_with

_MAX_IDLE = 4  # more than the steps of a load need, unless many files load concurrently

_RETRY_CONFIG = {"ducklake_max_retry_count": 100, "ducklake_retry_backoff": 1.05}
"""Each commit, in any dataset, takes the lake's next number and is retried if another was faster.

DuckLake's default of ten retries was not enough for eight writers.
"""

_idle: defaultdict[int, list[DuckDBPyConnection]] = defaultdict(list)
"""Connections without a lake, by process: after a fork a child cannot use those of its parent."""


class ReusableConnectionPool(DuckDbConnectionPool):
    """dlt's pool, which keeps returned connections.

    dlt opens about ten connections per load, each to a new DuckDB, and detaches the lake before it
    returns one. DuckDB would load 100 MB of extensions each time and check their signatures. That is
    most of a small load's time, and the dataset is locked meanwhile.
    """

    def borrow_conn(
        self, global_config: Any = None, local_config: Any = None, pragmas: Any = None
    ) -> DuckDBPyConnection:
        """Return a connection, configured as dlt and the environment require."""
        config = {**(self.credentials.global_config or {}), **(global_config or {})}
        # Last, because they load the extension, whose directory is another of the settings.
        retries = {name: value for name, value in _RETRY_CONFIG.items() if name not in config}
        borrow = partial(super().borrow_conn, {**config, **retries}, local_config, pragmas)
        return borrow_with(self, _idle[os.getpid()], borrow)

    def return_conn(self, borrowed_conn: DuckDBPyConnection) -> int:
        """Keep a connection, without its secrets."""
        idle = _idle[os.getpid()]
        if len(idle) >= _MAX_IDLE:
            borrowed_conn.close()
            return 0
        for (name,) in borrowed_conn.execute("SELECT name FROM duckdb_secrets()").fetchall():
            borrowed_conn.execute(f'DROP SECRET "{name}"')
        idle.append(borrowed_conn)
        return 0


class DuckLakeReplaceMixin(SqlReplaceMixin):
    """A client of a DuckLake, whose connections are reused."""

    def __init__(self, schema: Any, config: Any, capabilities: Any) -> None:
        credentials = config.credentials
        credentials.conn_pool = ReusableConnectionPool(credentials, always_open_connection=True)
        super().__init__(schema, config, capabilities)
