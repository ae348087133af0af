"""Propose the declaration of each table of a database from its catalog."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.schema import CreateIndex
from sqlalchemy.types import DateTime, Integer

from shared.sources.database.base import DatabaseError
from shared.sources.database.table import Mode
from shared.sources.names import column_name
from shared.sources.proposals.database_catalog import SMALL, Relation, Unreadable, read_catalog
from shared.sources.proposals.database_url import (
    connected,
    credentials_of,
    parse_url,
    server_of,
)
from shared.sources.proposals.personal import is_sensitive

_MOMENT = {
    *("at", "on", "last", "date", "time", "datetime", "timestamp", "ts", "dt", "utc", "tz"),
    *("row", "record", "sys", "system", "db"),
}
_CHANGE = {"updated", "update", "modified", "modify", "modification", "changed", "change", "mtime"}
_CREATION = {"created", "create", "creation", "inserted", "insert", "added", "ctime"}


@dataclass(frozen=True)
class TableProposal:
    """What the catalog says about how a table is loaded.

    Attributes:
        relation: the table or view.
        target: its name in the warehouse.
        mode: the proposed mode.
        key: the columns that identify a row; none if no key is known.
        cursor: the proposed cursor; "" for none.
        left_out: columns that are not loaded.
        notes: what a person should check.
    """

    relation: Relation
    target: str
    mode: Mode
    key: Sequence[str]
    cursor: str
    left_out: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True)
class DatabaseProposal:
    """What a database proposes.

    Attributes:
        dialect: `postgresql`, `mysql`, `mssql` or `sqlite`.
        credentials: the URL for the load, with its password.
        server: the server and the database, for messages, without a secret.
        tables: the tables and views.
        remarks: what is left out, and why.
    """

    dialect: str
    credentials: str = field(repr=False)
    server: str
    tables: Sequence[TableProposal]
    remarks: Sequence[str]


def propose_database(url: str, folder: Path) -> DatabaseProposal:
    """Connect to a database, read its catalog, and propose how each table is loaded.

    Only names, types and statistics are read, and rows are counted, up to 10,000 of a table.

    Args:
        url: its URL; see `database_url.FORMS`.
        folder: where a relative path of a SQLite file starts.

    Raises:
        DatabaseError: it cannot be read, or has no tables; the message is the next step.
    """
    parsed = parse_url(url, folder)
    with connected(parsed) as connection:
        found = list(read_catalog(connection))
        dialect = connection.dialect
    relations = [each for each in found if isinstance(each, Relation) and each.columns]
    of_dlt = [each for each in relations if each.name.startswith("_dlt_")]
    relations = [each for each in relations if each not in of_dlt]
    unreadable = [each for each in found if isinstance(each, Unreadable)]
    remarks = [
        *(
            f"Left out: {each.full_name}, which cannot be read: {each.reason}"
            for each in unreadable
        ),
        *(f"Left out: {each.full_name}, a table of dlt" for each in of_dlt),
    ]
    if not relations:
        reason = ". ".join(remarks) or "The database has no tables"
        raise DatabaseError(
            f"{server_of(parsed)}: {reason}. Check the name of the database, and whether the user may read its "
            "tables"
        )
    if any(each.schema for each in relations):  # then the connection's own schema is named as well
        relations = [
            replace(each, schema=each.schema or dialect.default_schema_name) for each in relations
        ]
    return DatabaseProposal(
        dialect=dialect.name,
        credentials=credentials_of(parsed),
        server=server_of(parsed),
        tables=[
            _table(each, target, dialect)
            for each, target in zip(relations, _targets(relations), strict=True)
        ],
        remarks=remarks,
    )


def _targets(relations: Sequence[Relation]) -> Iterator[str]:
    """Yield the names in the warehouse, which differ, and which Dagster takes: a-z, 0-9 and single _."""
    names = [_plain(each.name) for each in relations]
    used: set[str] = set()
    for relation, name in zip(relations, names, strict=True):
        candidates = [f"{name}_{number}" for number in range(2, len(names) + 2)]
        if names.count(name) > 1 and relation.schema:
            candidates = [f"{_plain(relation.schema)}_{name}", *candidates]
        else:
            candidates = [name, *candidates]
        target = next(each for each in candidates if each not in used)
        used.add(target)
        yield target


def _plain(name: str) -> str:
    ascii_name = (
        unicodedata.normalize("NFKD", column_name(name).casefold())
        .encode("ascii", "ignore")
        .decode()
    )
    plain = re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")
    return plain if plain[:1].isalpha() else f"table_{plain}".strip("_")


def _table(relation: Relation, target: str, dialect: sa.Dialect) -> TableProposal:
    """Return how a table is loaded."""
    sensitive = [
        name
        for name, column in relation.columns.items()
        if name.startswith("_dlt_") or is_sensitive(relation.name, name, column["type"])
    ]
    keys = [key for key in relation.keys if not {*key} & {*sensitive}]
    key = keys[0] if keys else ()
    changed, created = (_moments(relation, words, sensitive) for words in (_CHANGE, _CREATION))
    is_postgres = dialect.name == "postgresql"
    mode: Mode = "full"
    if key and not relation.is_view and not 0 <= relation.rows < SMALL:
        mode = "incremental" if is_postgres or changed else "mirror"
    cursor = changed[0] if mode == "incremental" and not is_postgres else ""
    return TableProposal(
        relation=relation,
        target=target,
        mode=mode,
        key=key,
        cursor=cursor,
        left_out=sensitive,
        notes=[
            *_notes_on_key(relation, key),
            *_notes_on_cursor(relation, cursor, dialect),
            *_notes_on_mode(relation, mode, key, [*changed, *created], is_postgres=is_postgres),
        ],
    )


def _moments(relation: Relation, words: set[str], left_out: Sequence[str]) -> list[str]:
    """Return the columns with the time of a row's change or insert; indexed and never NULL first."""
    allowed = words | _MOMENT | {*re.split("_", column_name(relation.name).removesuffix("s"))}

    def is_candidate(name: str, column: ReflectedColumn) -> bool:
        parts = {*column_name(name).split("_")}
        is_named = bool(parts & words) or (words is _CHANGE and parts == {"last", "modified"})
        return isinstance(column["type"], DateTime) and is_named and parts <= allowed

    found = [name for name, column in relation.columns.items() if is_candidate(name, column)]
    return sorted(
        (name for name in found if name not in left_out),
        key=lambda name: (name not in relation.indexed, relation.columns[name]["nullable"]),
    )


def _notes_on_key(relation: Relation, key: Sequence[str]) -> Iterator[str]:
    if relation.is_view:
        return
    if relation.keys and not key:
        yield f"Its key, {' and '.join(relation.keys[0])}, sounds secret or personal, so it is left out."
    elif not key:
        yield "It has no key, so each load reads all rows."


def _notes_on_cursor(relation: Relation, cursor: str, dialect: sa.Dialect) -> Iterator[str]:
    if not cursor:
        return
    if relation.columns[cursor]["nullable"]:
        yield f"Rows whose {cursor} is NULL are read again in each load."
    if cursor not in relation.indexed:
        index = sa.Index(
            f"{relation.name}_{cursor}",
            sa.Table(relation.name, sa.MetaData(), sa.Column(cursor), schema=relation.schema).c[
                cursor
            ],
        )
        statement = str(CreateIndex(index).compile(dialect=dialect))
        yield f"{cursor} has no index, so each load scans the table: {statement}"


def _notes_on_mode(
    relation: Relation, mode: Mode, key: Sequence[str], moments: Sequence[str], *, is_postgres: bool
) -> Iterator[str]:
    """Yield what another mode would do."""
    if mode == "mirror":
        yield "No column says when a row changed, so each load reads all rows."
        growing = [*moments, *(key if len(key) == 1 and _is_integer(relation, key[0]) else ())]
        if growing:
            yield f'If rows never change: mode="append", cursor="{growing[0]}".'
    indexed = [name for name in moments if name in relation.indexed]
    if mode == "incremental" and is_postgres and indexed:
        yield (
            f'To read by the index instead of a scan: cursor="{indexed[0]}", '
            "overlap=timedelta(hours=1)."
        )


def _is_integer(relation: Relation, column: str) -> bool:
    return isinstance(relation.columns[column]["type"], Integer)
