"""DuckDB's connections for DuckLake, used again."""

import os
from collections import defaultdict
from typing import Any, cast

from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
from duckdb import DuckDBPyConnection

_MOST_KEPT = 4  # more than a run's steps need, unless many files load at once

_PATIENCE = {"ducklake_max_retry_count": 100, "ducklake_retry_backoff": 1.05}
"""Each commit, in whichever dataset, takes the lake's next number; who comes too late tries again.

DuckLake's own ten tries were not enough for eight writers.
"""

_kept: defaultdict[int, list[DuckDBPyConnection]] = defaultdict(list)
"""Connections without a lake, by process: a fork cannot use its parent's."""


class ReusableConnectionPool(DuckDbConnectionPool):
    """dlt's pool, which keeps what is returned for whoever asks next.

    dlt opens some ten connections a run, each to a DuckDB of its own, and detaches the lake before it
    returns one. DuckDB would load its extensions anew each time and check their signatures, 100 MB of
    them: most of a small load's time, and the dataset is held meanwhile.
    """

    def borrow_conn(
        self, global_config: Any = None, local_config: Any = None, pragmas: Any = None
    ) -> DuckDBPyConnection:
        """Returns a connection, resolve_configuration as dlt and the environment want it."""
        chosen = {**(self.credentials.global_config or {}), **(global_config or {})}
        # Last, for they load the extension, and the folder of extensions is among the others.
        patience = {name: value for name, value in _PATIENCE.items() if name not in chosen}
        with self._conn_lock:
            kept = _kept[os.getpid()]
            taken: Any = kept.pop() if kept else None
            self._conn, self._conn_borrows = taken, 0  # at none borrowed dlt configures it
            try:
                return super().borrow_conn({**chosen, **patience}, local_config, pragmas)
            finally:
                self._conn = cast(Any, None)

    def return_conn(self, borrowed_conn: DuckDBPyConnection) -> int:
        """Keeps a connection, without the secrets that it was given."""
        kept = _kept[os.getpid()]
        if len(kept) >= _MOST_KEPT:
            borrowed_conn.close()
            return 0
        for (name,) in borrowed_conn.execute("SELECT name FROM duckdb_secrets()").fetchall():
            borrowed_conn.execute(f'DROP SECRET "{name}"')
        kept.append(borrowed_conn)
        return 0
