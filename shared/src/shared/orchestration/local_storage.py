"""The storage of a Dagster instance on one machine: Dagster's own in SQLite, which also stores events in batches.

It uses private names of Dagster, listed in `shared/tests/test_dagster_internals.py`, and must not import
dlt: the webserver and the daemon load it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import func, select

from shared.orchestration.dagster_events import store_events_in_batches
from shared.orchestration.dagster_tables import EVENTS


class BatchedEventLogStorage(SqliteEventLogStorage):
    """Dagster's event log in SQLite, which stores the partitions of a run in one transaction.

    Dagster's own stores each event alone, in 7 statements, 4 connections and 2 commits. A run has two
    events for each partition: one when it is planned, one when it is materialized.
    """

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run: planned and materialized partitions, and planned checks."""
        of_assets = [event for event in events if event.dagster_event_type in ASSET_EVENTS]
        for event in events:
            if event.dagster_event_type not in ASSET_EVENTS:
                self.store_event(event)
        if not of_assets:
            return
        rows = [self._event_to_row(event) for event in of_assets]
        with self.run_connection(of_assets[0].run_id) as connection:
            connection.execute(EVENTS.insert(), rows)
        # The index has the events of assets of all runs.
        with self.index_transaction() as connection:
            connection.execute(EVENTS.insert(), rows)
            # SQLite has one writer, so the ids of a transaction follow each other.
            last = connection.execute(select(func.max(EVENTS.c.id))).scalar_one()
            ids = range(last - len(rows) + 1, last + 1)
            self._store_asset_event_tags(connection, of_assets, ids)
            pairs = zip(of_assets, ids, strict=True)
            latest = {row["asset_key"]: pair for row, pair in zip(rows, pairs, strict=True)}
            for event, event_id in latest.values():
                self._store_asset_event(connection, event, event_id)


class LocalStorage(DagsterSqliteStorage):
    """Dagster's storage in SQLite, with a `BatchedEventLogStorage`. The files are the same.

    A process that opens the storage gets its events in batches: also the webserver and the daemon, which
    store what a run is to materialize.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        folder = Path(self.event_log_storage.path_for_shard("index")).parent  # type: ignore[attr-defined]
        self._event_log_storage = BatchedEventLogStorage(str(folder))
        store_events_in_batches()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Return the storage of dagster.yaml."""
        return cls.from_local(inst_data=inst_data, **config_value)
