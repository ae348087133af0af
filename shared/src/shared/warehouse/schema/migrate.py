"""Change a table that has rows, together with the schema that dlt has stored of it: `etl migrate`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dlt.common.schema import Schema
from dlt.common.schema.utils import get_nested_tables
from dlt.destinations.exceptions import DatabaseException

from shared.redaction import redact
from shared.warehouse.destinations.configuration import resolve_configuration
from shared.warehouse.destinations.datasets import stored_dataset
from shared.warehouse.destinations.factory import create_destination, create_lock_manager
from shared.warehouse.errors import MigrationError, UnknownTableError, WarehouseNotFoundError
from shared.warehouse.locks.base import Log, no_log
from shared.warehouse.locks.file import duckdb_path
from shared.warehouse.schema.change import TableChange, change_schema, describe_difference
from shared.warehouse.schema.type_change import count_changed_values

MIGRATED_TYPES = ("duckdb", "postgres")
"""The warehouse types that change a table and dlt's stored schema in one transaction."""


@dataclass(frozen=True)
class Migration:
    """A change that can be applied, because it changes no value.

    Attributes:
        change: the requested change.
        statements: the SQL that changes the tables, in one transaction.
        schema_diff: the difference in dlt's stored schemas, line by line.
    """

    change: TableChange
    statements: tuple[str, ...]
    schema_diff: tuple[str, ...]


def plan_migration(change: TableChange, log: Log = no_log) -> Migration:
    """Return what a change does. Nothing is changed; other loads of the dataset wait meanwhile.

    Raises:
        MigrationError: the table or the column does not exist, a value would change, or the warehouse is
            of another type than `MIGRATED_TYPES`.
        Exception: what `query` raises.
    """
    with _opened(change, log) as dataset:
        return dataset.plan()


def migrate(migration: Migration, log: Log = no_log) -> None:
    """Change the tables and dlt's stored schemas in one transaction, under the lock of the dataset.

    Raises:
        MigrationError: as `plan_migration` does, or the tables are not what they were then.
        Exception: what `query` raises.
    """
    with _opened(migration.change, log) as dataset:
        # Afterwards a load could not find by their names the tables of one that was killed.
        dataset.client.undo_unfinished_loads()
        with dataset.client.sql_client.begin_transaction():
            dataset.lock_table()
            if dataset.plan() != migration:
                raise MigrationError(
                    f"{migration.change.qualified_table} has changed since the migration was planned; "
                    "nothing was changed. Run the command again."
                )
            for statement in migration.statements:
                dataset.execute(statement)
            dataset.store_schemas()


@contextmanager
def _opened(change: TableChange, log: Log) -> Iterator["_Dataset"]:
    """Lock a dataset and connect to it."""
    destination: Any = create_destination()
    warehouse_type = destination.warehouse_type
    if warehouse_type not in MIGRATED_TYPES:
        raise MigrationError(
            f"etl migrate changes tables in {' and '.join(MIGRATED_TYPES)}, and the warehouse is "
            f"{warehouse_type}: it cannot change a table and dlt's stored schema in one transaction. "
            "Load the table again with dlt's refresh, or give the column another name."
        )
    if warehouse_type == "duckdb" and not duckdb_path().exists():
        raise WarehouseNotFoundError(f"No warehouse at {duckdb_path()}: nothing is loaded yet.")
    configuration = resolve_configuration(destination, stored_dataset(change.dataset))
    locks = create_lock_manager(destination, configuration, log)
    with locks.dataset_lock(), _client(destination, configuration, Schema("migrate")) as client:
        try:
            yield _Dataset(client, destination, configuration, change)
        except DatabaseException as error:
            message = redact(str(error).partition("\n\nLINE ")[0].strip())
            raise MigrationError(
                f"{warehouse_type} refuses to change {change.qualified_table}: {message}; nothing was "
                "changed."
            ) from None


def _client(destination: Any, configuration: Any, schema: Schema) -> Any:
    """Return dlt's client of a schema, which begins no transaction of its own."""
    client = destination.client(schema, configuration)
    client.capabilities.supports_ddl_transactions = False
    return client


class _Dataset:
    """A locked dataset, and a change of one of its tables."""

    def __init__(
        self, client: Any, destination: Any, configuration: Any, change: TableChange
    ) -> None:
        self.client, self.change = client, change
        self._destination, self._configuration = destination, configuration
        self._escape = client.sql_client.escape_column_name
        self._is_postgres = destination.warehouse_type == "postgres"
        self.schemas: list[tuple[Schema, Schema]] = []

    def execute(self, sql: str, *parameters: object) -> Sequence[Sequence[Any]]:
        """Run a statement and return its rows."""
        return self.client.sql_client.execute_sql(sql, *parameters) or ()

    def plan(self) -> Migration:
        """Return what the change does; see `plan_migration`."""
        change = self.change
        stored = list(self._stored_schemas())
        self.schemas = [
            (schema, change_schema(schema, change))
            for schema in stored
            if change.table in schema.data_table_names()
        ]
        if not self.schemas:
            raise UnknownTableError(
                f"No pipeline has loaded a table {change.qualified_table}; etl show lists all tables."
            )
        schema, changed = self.schemas[0]
        exists, columns = self.client.get_storage_table(change.table)
        if not exists or (change.column and change.column not in columns):
            what = f"column {change.column}" if exists else "table"
            raise MigrationError(
                f"The {what} of {change.qualified_table} was dropped from the warehouse by hand: the "
                "next load creates it again, and then it can be migrated."
            )
        self._reject_existing_name(columns, stored)
        self._reject_lost_values(schema, changed)
        return Migration(
            change,
            () if change.reuse_name else (*self._alter(schema, changed), *self._discard(schema)),
            tuple(
                line
                for before, after in self.schemas
                for line in describe_difference(before, after)
            ),
        )

    def lock_table(self) -> None:
        """Keep other programs from writing into the table until the transaction ends."""
        if self._is_postgres and self.client.get_storage_table(self.change.table)[0]:
            self.execute(f"LOCK TABLE {self._name(self.change.table)} IN ACCESS EXCLUSIVE MODE")

    def store_schemas(self) -> None:
        """Make the changed schemas the newest that dlt has stored."""
        for _, changed in self.schemas:
            with_changed = _client(self._destination, self._configuration, changed)
            with_changed.sql_client = self.client.sql_client  # the connection of the transaction
            # dlt stores no schema whose content it has stored before, and then reads a later one.
            versions = self._name(changed.version_table_name)
            self.execute(
                f"DELETE FROM {versions} WHERE version_hash = %s AND schema_name = %s",
                *(changed.version_hash, changed.name),
            )
            with_changed.update_stored_schema(only_tables=[changed.version_table_name])

    def _stored_schemas(self) -> Iterator[Schema]:
        """Yield the newest version of each schema of the dataset."""
        versions = self.client.schema.version_table_name
        if not self.client.get_storage_table(versions)[0]:
            return
        for (name,) in self.execute(
            f"SELECT DISTINCT schema_name FROM {self._name(versions)} ORDER BY 1"
        ):
            info = self.client.get_stored_schema(name)
            yield Schema.from_stored_schema(json.loads(info.schema))

    def _reject_existing_name(self, columns: Any, stored: Sequence[Schema]) -> None:
        """Reject a new name that a column or a table has."""
        new = self.change.rename_to
        if not new:
            return
        if self.change.column:
            taken = any(name.casefold() == new.casefold() for name in columns)
        else:
            taken = self.client.get_storage_table(new)[0] or any(
                new in schema.tables for schema in stored
            )
        if taken:
            owner = self.change.qualified_table if self.change.column else self.change.dataset
            raise MigrationError(f"{owner} has a {self.change.kind} {new} already.")

    def _reject_lost_values(self, schema: Schema, changed: Schema) -> None:
        """Reject a change of type that a value does not survive, and NULL where none may be."""
        change = self.change
        table, column = self._name(change.table), change.column
        if not column:
            return
        if change.nullable is False:
            ((count,),) = self.execute(
                f"SELECT count(*) FROM {table} WHERE {self._escape(column)} IS NULL"
            )
            if count:
                raise MigrationError(
                    f"{change.qualified_table}.{column} is NULL in {count} row{'s' * (count > 1)}; nothing was changed. "
                    f"Fill them first: UPDATE {table} SET {self._escape(column)} = … WHERE "
                    f"{self._escape(column)} IS NULL"
                )
        if change.data_type:
            old, new = self._types(schema, changed)
            count, example = count_changed_values(
                self.execute, table, self._escape(column), old, new, postgres=self._is_postgres
            )
            if count:
                raise MigrationError(
                    f"{change.qualified_table}.{column}: {count} "
                    f"value{'s' * (count > 1)} would change as {change.data_type}, such as {example}; nothing was changed."
                )

    def _types(self, schema: Schema, changed: Schema) -> tuple[str, str]:
        """Return the database's types of the column, before and after."""
        table, column = self.change.table, str(self.change.column)
        before, after = (
            self.client.type_mapper.to_destination_type(
                version.tables[table]["columns"][column], version.tables[table]
            )
            for version in (schema, changed)
        )
        return str(before), str(after)

    def _alter(self, schema: Schema, changed: Schema) -> Iterator[str]:
        """Yield the SQL that changes the tables."""
        change, table = self.change, self._name(self.change.table)
        new = self._escape(change.rename_to) if change.rename_to else ""
        if change.column is None:
            for nested in get_nested_tables(schema.tables, change.table):
                name = str(nested["name"])
                renamed = self._escape(f"{change.rename_to}{name.removeprefix(change.table)}")
                yield f"ALTER TABLE {self._name(name)} RENAME TO {renamed}"
            return
        column = self._escape(change.column)
        if new:
            yield f"ALTER TABLE {table} RENAME COLUMN {column} TO {new}"
        elif change.drop:
            yield f"ALTER TABLE {table} DROP COLUMN {column}"
        elif change.nullable is not None:
            how = "DROP" if change.nullable else "SET"
            yield f"ALTER TABLE {table} ALTER COLUMN {column} {how} NOT NULL"
        else:
            after = self._types(schema, changed)[1]
            yield (
                f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {after} "
                f"USING CAST({column} AS {after})"
            )

    def _discard(self, schema: Schema) -> Iterator[str]:
        """Yield the SQL that removes what was derived from the old tables."""
        sql_client = self.client.sql_client
        with sql_client.with_staging_dataset():
            has_staging = sql_client.has_dataset()
        if has_staging:  # each load fills it again; a table in it would keep the old columns
            name = self._escape(sql_client.staging_dataset_name)
            yield f"DROP SCHEMA {name} CASCADE"
        if self.client.get_storage_table("_pushdown_loads")[0]:
            tables = get_nested_tables(schema.tables, self.change.table)
            names = ", ".join(f"'{table['name']}'" for table in tables)
            yield f"DELETE FROM {self._name('_pushdown_loads')} WHERE table_name IN ({names})"

    def _name(self, table: str) -> str:
        return str(self.client.sql_client.make_qualified_table_name(table))
