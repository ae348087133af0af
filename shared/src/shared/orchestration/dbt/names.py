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
        stored: where each source, model, seed and snapshot is.
        read: the sources and models that the run reads and does not build.
    """

    manifest: Manifest
    stored: Mapping[str, StoredTable]
    read: frozenset[str]

    @property
    def datasets(self) -> dict[str, str]:
        """The name in the warehouse of each declared dataset that has models."""
        return {
            table_of(node(self.manifest, unique_id))[0]: table.schema
            for unique_id, table in self.stored.items()
            if unique_id not in self.manifest["sources"] and unique_id not in self.read
        }

    @property
    def variables(self) -> dict[str, object]:
        """The variables that the macros of a project read."""
        return {
            "stored_datasets": self.datasets,
            "stored_tables": {
                ".".join(table_of(node(self.manifest, unique_id))): asdict(self.stored[unique_id])
                for unique_id in sorted(self.read)
            },
        }

    def stored_manifest(self) -> dict[str, Any]:
        """Return the manifest with the names in the warehouse, for column lineage and row counts."""
        manifest = copy.deepcopy({**self.manifest})
        manifest["metadata"]["adapter_type"] = warehouse.warehouse_type()
        for unique_id, table in self.stored.items():
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
    stored, existing = _locate(declared_tables(manifest))
    readers: dict[str, list[str]] = {}
    for child in sorted(built):
        for parent in _parents(manifest, child):
            readers.setdefault(parent, []).append(child)
    read = frozenset(readers) - frozenset(built)
    if missing := [unique_id for unique_id in sorted(read) if stored[unique_id] not in existing]:
        keys = [translator.get_asset_key(node(manifest, unique_id)) for unique_id in missing]
        children = sorted({child for unique_id in missing for child in readers[unique_id]})
        raise warehouse.MissingTableError(
            f"{', '.join(node(manifest, child)['name'] for child in children)} reads "
            f"{', '.join('.'.join(key.path) for key in keys)}, which the warehouse does not have yet; no "
            "model was built. Load it first: uv run etl run "
            + " ".join(key.to_user_string() for key in keys)
        )
    return RunTables(manifest, stored, read)


def _locate(
    tables: Mapping[str, tuple[str, str]],
) -> tuple[dict[str, StoredTable], set[StoredTable]]:
    """Return where tables are, and all tables that exist."""
    sql = "SELECT table_catalog, table_schema, table_name FROM information_schema.tables"
    try:
        existing = {StoredTable(*row.values()) for row in warehouse.query(sql)}
    except warehouse.WarehouseNotFoundError:  # nothing is loaded yet
        existing = set()
    destination = create_destination()
    database = database_name(destination, resolve_configuration(destination, "public"))
    return {
        unique_id: StoredTable(database, *table) for unique_id, table in tables.items()
    }, existing


def _parents(manifest: Manifest, child: str) -> Iterator[str]:
    """Yield the tables that a node reads, also through ephemeral models."""
    for parent in manifest["parent_map"].get(child, ()):
        props = node(manifest, parent)
        if props.get("config", {}).get("materialized") == "ephemeral":
            yield from _parents(manifest, parent)
        elif props["resource_type"] in _TABLE_TYPES:
            yield parent
