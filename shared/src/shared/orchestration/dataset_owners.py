"""Which pipeline owns what in a dataset, so that no load writes into the tables of another pipeline.

dlt stores one schema for each source name of a dataset (`_dlt_version`), one state for each pipeline name
(`_dlt_pipeline_state`), and the rows of each table without their pipeline. What two pipelines share there,
one of them overwrites: rows, the cursor of a resource, or, with `refresh="drop_sources"`, all tables of a
source. So each of them has one owner: a pipeline of a code location.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations

import dagster as dg

from shared import warehouse
from shared.orchestration.dagster_internals import declared_loads
from shared.orchestration.metadata import SQL_FILE


@dataclass(frozen=True)
class TableOwner:
    """A table, and what loads it.

    Attributes:
        location: the code location.
        asset: the name of the `@dlt_assets`, or of the `.sql` file.
        pipeline: the name of the dlt pipeline; empty if SQL makes the table.
        dataset: the dataset.
        source: the name of the dlt source, and so of its schema; empty if SQL makes the table.
        resource: the name of the dlt resource.
        table: the table. A resource whose tables depend on its rows has its own name here.
    """

    location: str
    asset: str
    pipeline: str
    dataset: str
    source: str
    resource: str
    table: str

    @property
    def owner(self) -> tuple[str, str]:
        """What may own something in a dataset."""
        return self.location, self.pipeline

    def __str__(self) -> str:
        """Name what a person has to find in the code."""
        if not self.pipeline:
            return f"{self.location}.{self.asset}"
        return f"{self.location}.{self.asset} (pipeline {self.pipeline}, source {self.source})"


def table_owners(location: str, assets: Iterable[object]) -> list[TableOwner]:
    """Return what the `@dlt_assets` and the `.sql` files among a location's definitions load."""
    owners: list[TableOwner] = []
    for definition in assets:
        for source, pipeline, translator in declared_loads(definition):
            declared = getattr(translator, "related_tables", {})
            for resource in source.selected_resources.values():
                own, *related = warehouse.declared_tables(resource)
                named = declared.get(resource.name) or declared.get(own, ())
                names = dict.fromkeys([own, *related, *map(warehouse.normalize_name, named)])
                owners += (
                    TableOwner(
                        location=location,
                        asset=definition.node_def.name,  # type: ignore[attr-defined]
                        pipeline=pipeline.pipeline_name,
                        dataset=pipeline.dataset_name,
                        source=source.name,
                        resource=resource.name,
                        table=name,
                    )
                    for name in names
                )
        owners += _sql_owners(location, definition)
    return owners


def _sql_owners(location: str, definition: object) -> Iterator[TableOwner]:
    """Yield the table of a `.sql` file."""
    for spec in definition.specs if isinstance(definition, dg.AssetsDefinition) else ():
        if SQL_FILE in spec.metadata:
            dataset, table = spec.key.path
            file = spec.metadata[SQL_FILE]
            yield TableOwner(location, file, "", dataset, source="", resource=table, table=table)


def find_conflicts(owners: Iterable[TableOwner]) -> list[str]:
    """Return what two owners share in a dataset, each as a text that says what to write instead."""
    found = (_conflicts(one, other) for one, other in combinations(owners, 2))
    return list(dict.fromkeys(chain.from_iterable(found)))


def _conflicts(one: TableOwner, other: TableOwner) -> Iterator[str]:
    if f"{one.dataset}_staging" == other.dataset or one.dataset == f"{other.dataset}_staging":
        dataset, staging = sorted((one.dataset, other.dataset), key=len)
        yield (
            f"{staging} is the dataset in which dlt prepares the rows of {dataset}: a load of {dataset} "
            f"empties its tables. Give the pipeline of {staging} another dataset_name."
        )
    elif one.dataset == other.dataset and (one.owner, one.asset) != (other.owner, other.asset):
        yield from _conflicts_in_dataset(one, other)


def _conflicts_in_dataset(one: TableOwner, other: TableOwner) -> Iterator[str]:
    if one.table == other.table:
        yield (
            f"{one.dataset}.{one.table} is loaded by {one} and by {other}: each would replace or add to "
            "the rows of the other. Give one resource another table_name, one .sql file another name, or "
            "one pipeline another dataset_name."
        )
    elif not (one.pipeline and other.pipeline):
        return
    elif one.owner == other.owner:
        if (one.source, one.resource) == (other.source, other.resource):
            yield (
                f"The resource {one.resource} of the source {one.source} is in {one} and in {other}, and "
                f"loads {one.dataset}.{one.table} and {other.dataset}.{other.table}: dlt stores one "
                "cursor for both. Give one of them another name."
            )
    elif one.source == other.source:
        yield (
            f"The source {one.source} of the dataset {one.dataset} is in {one} and in {other}: dlt "
            "stores one schema for both, so `refresh` in one drops the tables of the other. Give one "
            "source another name, or one pipeline another dataset_name."
        )
    elif one.pipeline == other.pipeline:
        yield (
            f"The pipeline {one.pipeline} of the dataset {one.dataset} is in {one} and in {other}: they "
            "would share one state. Give one pipeline another name."
        )


def reject_conflicts(location: str, assets: Iterable[object]) -> None:
    """Reject the definitions of one location that would write into each other's tables.

    Raises:
        DagsterInvalidDefinitionError: with what conflicts, and what to write instead.
    """
    if conflicts := find_conflicts(table_owners(location, assets)):
        raise dg.DagsterInvalidDefinitionError("\n".join(conflicts))
