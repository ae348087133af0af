"""The tables of a run: where they are in the warehouse, and whether those that it reads are there."""

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dagster_dbt import DagsterDbtTranslator

from shared import warehouse
from shared.orchestration.dbt.translator import table_of
from shared.warehouse.destinations.configuration import resolve_configuration
from shared.warehouse.destinations.factory import create_destination, database_name

Manifest = Mapping[str, Any]
_TABLE_TYPES = ("model", "seed", "snapshot", "source")


@dataclass(frozen=True)
class StoredTable:
    """Where a table is in the warehouse, in dbt's words."""

    database: str
    schema: str
    identifier: str


@dataclass(frozen=True)
class RunTables:
    """The tables of a run.

    Attributes:
        manifest: what dbt knows of the project, with the names that the code declares.
        own: where each source, model, seed and snapshot is in the environment of this process.
        read: where each source and model is that the run reads and does not build.
        database: the name of the warehouse's database.
        datasets: the names in the warehouse of the datasets that the run writes.
    """

    manifest: Manifest
    own: Mapping[str, StoredTable]
    read: Mapping[str, StoredTable]
    database: str
    datasets: frozenset[str]

    @property
    def variables(self) -> dict[str, object]:
        """The variables for the macros of a project: the names that are not as declared."""
        datasets: dict[str, str] = {}
        tables: dict[str, object] = {}
        for unique_id, (dataset, name) in declared_tables(self.manifest).items():
            own = self.own[unique_id]
            if unique_id in self.manifest["sources"]:
                by_dbt = StoredTable(self.database, dataset, name)
            else:
                by_dbt = own  # as the macro `generate_schema_name` has it
                datasets |= {dataset: own.schema} if dataset != own.schema else {}
            if (table := self.read.get(unique_id, own)) != by_dbt:
                tables[f"{by_dbt.schema}.{by_dbt.identifier}"] = asdict(table)
        named = {"stored_datasets": datasets, "stored_tables": tables}
        return {name: value for name, value in named.items() if value}

    def stored_manifest(self) -> dict[str, Any]:
        """Return the manifest with the names in the warehouse, for column lineage and row counts."""
        manifest = copy.deepcopy({**self.manifest})
        manifest["metadata"]["adapter_type"] = warehouse.warehouse_type()
        for unique_id, table in {**self.own, **self.read}.items():
            name = warehouse.quote_identifier(table.database, table.schema, table.identifier)
            node(manifest, unique_id).update(
                **asdict(table), alias=table.identifier, relation_name=name
            )
        return manifest


def node(manifest: Manifest, unique_id: str) -> dict[str, Any]:
    """Return a model, seed, snapshot, test or source of a manifest."""
    found: dict[str, Any] = manifest["nodes"].get(unique_id) or manifest["sources"][unique_id]
    return found


def declared_tables(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Return the dataset and the table of each source, model, seed and snapshot."""
    nodes = {**manifest["nodes"], **manifest["sources"]}
    return {
        unique_id: table_of(props)
        for unique_id, props in nodes.items()
        if props["resource_type"] in _TABLE_TYPES
    }


def tables_of_run(
    manifest: Manifest, translator: DagsterDbtTranslator, built: Collection[str]
) -> RunTables:
    """Return the tables of a run.

    Args:
        manifest: what dbt knows of the project.
        translator: returns the asset key of each node.
        built: the models, seeds and snapshots that the run builds.

    Raises:
        MissingTableError: a source, or a model that the run does not build, is not in the warehouse; the
            message has the command that loads it.
    """
    tables = declared_tables(manifest)
    readers: dict[str, list[str]] = {}
    for child in sorted(built):
        for parent in _parents(manifest, child):
            if parent not in built:
                readers.setdefault(parent, []).append(child)
    places = warehouse.find_tables({tables[parent] for parent in readers})
    if missing := [parent for parent in sorted(readers) if places[tables[parent]] is None]:
        keys = [translator.get_asset_key(node(manifest, parent)) for parent in missing]
        children = sorted({child for parent in missing for child in readers[parent]})
        raise warehouse.MissingTableError(
            f"{', '.join(node(manifest, child)['name'] for child in children)} reads "
            f"{', '.join('.'.join(key.path) for key in keys)}, which the warehouse does not have yet; no "
            "model was built. Load it first: uv run etl run "
            + " ".join(key.to_user_string() for key in keys)
        )
    database = _database()
    own = {
        unique_id: StoredTable(database, warehouse.stored_dataset(dataset), name)
        for unique_id, (dataset, name) in tables.items()
    }
    # Of another environment's DuckDB file, the place has the name of that file's catalog before it.
    read = {
        parent: StoredTable(*(database, *place)[-3:])
        for parent in readers
        if (place := places[tables[parent]])
    }
    datasets = frozenset(own[unique_id].schema for unique_id in built)
    return RunTables(manifest, own, read, database, datasets)


def _database() -> str:
    """Return the name of the warehouse's database."""
    destination = create_destination()
    return database_name(destination, resolve_configuration(destination, "public"))


def _parents(manifest: Manifest, child: str) -> Iterator[str]:
    """Yield the tables that a node reads, also through ephemeral models."""
    for parent in manifest["parent_map"].get(child, ()):
        props = node(manifest, parent)
        if props.get("config", {}).get("materialized") == "ephemeral":
            yield from _parents(manifest, parent)
        elif props["resource_type"] in _TABLE_TYPES:
            yield parent
