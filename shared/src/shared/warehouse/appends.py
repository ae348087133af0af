"""What a load appends, so that a load that did not complete can be undone.

dlt restores the state of complete loads only. After a load that committed rows and did not complete, the
next one would therefore add them again (dlt#4052).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dlt.common.schema import Schema
from dlt.common.schema.utils import get_nested_tables, get_root_table
from dlt.common.storages.load_package import LoadPackageInfo


@dataclass
class Appends:
    """What a load appends.

    Attributes:
        load_ids: all loads of the run, by schema. They count as complete once the last one is, because
            dlt stores the state with one of them.
        tables: the tables that each of them appends to, by schema; nested tables follow their roots.
        staged: the root tables whose rows are staged, so that nested rows are committed with their roots.
        started: the schemas whose load is marked as started.
    """

    load_ids: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)

    @property
    def last_load_id(self) -> str:
        """The load that completes last."""
        return max(self.load_ids.values(), key=float)


def find_appends(
    packages: Iterable[LoadPackageInfo], schema: Schema, replaced: Collection[str]
) -> Appends:
    """Return what the packages of a load append.

    Args:
        packages: the packages that are about to load.
        schema: the schema of the source; another package has only dlt's own state.
        replaced: tables that are loaded by partition.
    """
    appends = Appends()
    for package in packages:
        appends.load_ids[package.schema_name] = package.load_id
        if package.schema_name != schema.name:
            continue
        tables = {job.job_file_info.table_name for job in package.jobs["new_jobs"]}
        roots = {
            str(get_root_table(schema.tables, table)["name"])
            for table in tables
            if table in schema.tables
        }
        appended = [root for root in sorted(roots) if is_appended(schema, root, replaced)]
        for root in appended:
            if (
                len(tables & {table["name"] for table in get_nested_tables(schema.tables, root)})
                > 1
            ):
                appends.staged.add(root)
        if appended:
            appends.tables[schema.name] = tables_of(schema, appended)
    return appends


def is_appended(schema: Schema, root: str, replaced: Collection[str] = ()) -> bool:
    """Return whether loads append to a root table of the user."""
    return (
        root not in replaced
        and root not in schema.dlt_table_names()
        and schema.tables[root].get("write_disposition") == "append"
    )


def tables_of(schema: Schema, roots: Iterable[str]) -> list[str]:
    """Return root tables and their nested tables, each after its parent."""
    return [
        str(table["name"]) for root in roots for table in get_nested_tables(schema.tables, root)
    ]
