"""Read the catalog of a database: its tables and views, with columns, keys, indexes and sizes."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn, ReflectedIndex
from sqlalchemy.engine.reflection import Inspector, ObjectKind
from sqlalchemy.exc import CompileError, SAWarning, SQLAlchemyError
from sqlalchemy.types import TypeEngine

SMALL = 10_000
"""Rows are counted up to this number; of larger tables the statistics say how many there are."""

_KINDS = {"r": "table", "p": "table", "f": "table", "v": "view", "m": "view"}

_RELATIONS = {
    "postgresql": """
        SELECT n.nspname, c.relname, c.relkind::text, c.reltuples::bigint
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition
    """,
    "mysql": """
        SELECT table_schema, table_name, 'r', coalesce(table_rows, -1)
        FROM information_schema.tables WHERE table_schema = database() AND table_type LIKE '%TABLE'
    """,
    "mssql": """
        SELECT s.name, t.name, 'r', sum(p.rows) FROM sys.tables AS t
        JOIN sys.schemas AS s ON s.schema_id = t.schema_id
        JOIN sys.partitions AS p ON p.object_id = t.object_id AND p.index_id IN (0, 1)
        GROUP BY s.name, t.name
    """,
}
"""Schema, name, kind and estimated rows, where the catalog has them."""

_SYSTEM_SCHEMAS = {"information_schema", "sys", "guest"}
_SYSTEM_PREFIXES = ("pg_", "db_", "_timescaledb_")


@dataclass(frozen=True)
class Relation:
    """A table or a view of a database.

    Attributes:
        schema: its schema; None for the one that the connection has.
        name: its name.
        is_view: whether it is a view, also a materialized one.
        columns: its columns, with SQLAlchemy's types.
        types: the database's names of the types, by column.
        keys: the primary key, if there is one, and the unique indexes of columns that are never NULL.
        indexed: the columns that are the first of an index.
        rows: how many rows it has, up to `SMALL`; above that what the statistics say; -1 if they say
            nothing, as for a view.
    """

    schema: str | None
    name: str
    is_view: bool
    columns: Mapping[str, ReflectedColumn]
    types: Mapping[str, str]
    keys: Sequence[tuple[str, ...]]
    indexed: frozenset[str]
    rows: int

    @property
    def full_name(self) -> str:
        """The name with the schema, if that is another than the connection's."""
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True)
class Unreadable:
    """A table or a view that the catalog lists, and that cannot be read.

    Attributes:
        full_name: its name, with its schema.
        reason: what the database says.
    """

    full_name: str
    reason: str


def read_catalog(connection: sa.Connection) -> Iterator[Relation | Unreadable]:
    """Yield the tables and views of a database, by schema and name; system schemas are left out.

    Args:
        connection: commits automatically, so that one refused statement does not end the others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # a type or index that SQLAlchemy does not know
        inspector = sa.inspect(connection)
        for schema in _schemas(inspector):
            yield from _relations(connection, inspector, schema)


def _schemas(inspector: Inspector) -> list[str | None]:
    """Return the schemas with tables of users, the connection's own as None and first."""
    if inspector.dialect.name not in ("postgresql", "mssql"):
        return [None]
    others = [
        name
        for name in inspector.get_schema_names()
        if name != inspector.default_schema_name
        and name.lower() not in _SYSTEM_SCHEMAS
        and not name.startswith(_SYSTEM_PREFIXES)
    ]
    return [None, *sorted(others)]


def _relations(
    connection: sa.Connection, inspector: Inspector, schema: str | None
) -> Iterator[Relation | Unreadable]:
    estimated = _estimated_rows(connection, schema or inspector.default_schema_name)
    kinds = {name: kind for name, (kind, _) in estimated.items()}
    if inspector.dialect.name != "postgresql":  # whose partitions are no tables of their own
        kinds = dict.fromkeys(inspector.get_table_names(schema), "table")
        kinds |= dict.fromkeys(inspector.get_view_names(schema), "view")
    columns = inspector.get_multi_columns(schema, kind=ObjectKind.TABLE)
    keys = inspector.get_multi_pk_constraint(schema)
    indexes = inspector.get_multi_indexes(schema, include_auto_indexes=True)  # SQLite's of UNIQUE
    uniques = inspector.get_multi_unique_constraints(schema)
    for name, kind in sorted(kinds.items()):
        where, is_view = (schema, name), kind == "view"
        try:
            listed = inspector.get_columns(name, schema) if is_view else columns[where]
            rows = _rows(connection, where, -1 if is_view else estimated.get(name, ("", -1))[1])
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).partition("\n")[0]
            yield Unreadable(f"{schema}.{name}" if schema else name, reason)
            continue
        by_name = {column["name"]: column for column in listed}
        primary_key = keys.get(where)
        primary = tuple(primary_key["constrained_columns"] if primary_key else ())
        of_columns = [_columns_of(index) for index in indexes.get(where) or ()]
        constraints = [tuple(unique["column_names"]) for unique in uniques.get(where) or ()]
        unique_indexes = [
            names
            for index, names in zip(indexes.get(where) or (), of_columns, strict=True)
            if index["unique"] and names and not _is_partial(index)
        ]
        never_null = [
            names
            for names in dict.fromkeys([*constraints, *unique_indexes])
            if not any(by_name[column]["nullable"] for column in names)
        ]
        yield Relation(
            schema=schema,
            name=name,
            is_view=is_view,
            columns=by_name,
            types={
                column: _type_name(each["type"], inspector.dialect)
                for column, each in by_name.items()
            },
            keys=[*filter(None, [primary]), *never_null],
            indexed=frozenset(
                names[0] for names in [primary, *constraints, *of_columns] if names and names[0]
            ),
            rows=-1 if is_view else rows,
        )


def _estimated_rows(connection: sa.Connection, schema: str | None) -> dict[str, tuple[str, int]]:
    """Return kind and estimated rows of the tables of a schema, by name."""
    query = _RELATIONS.get(connection.dialect.name)
    if not query:
        return {}
    found = connection.execute(sa.text(query)).all()
    return {
        name: (_KINDS[kind], int(rows)) for of, name, kind, rows in found if of in (schema, None)
    }


def _rows(connection: sa.Connection, table: tuple[str | None, str], estimated: int) -> int:
    """Return how many rows a table has; -1 for a large one without statistics.

    The count ends at `SMALL`, because statistics of a table that grew say too little.
    """
    schema, name = table
    some: sa.Select[Any] = sa.select(sa.literal_column("1").label("one"))
    some = some.select_from(sa.table(name, schema=schema))
    some = some.limit(SMALL if estimated < SMALL else 1)  # one row: may it be read?
    counted: int = connection.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0
    if estimated >= SMALL:
        return estimated
    return counted if counted < SMALL else -1


def _columns_of(index: ReflectedIndex) -> tuple[str, ...]:
    """Return the columns of an index; none if it is one of expressions."""
    names: list[Any] = list(index["column_names"])
    return () if None in names else tuple(names)


def _is_partial(index: ReflectedIndex) -> bool:
    return any(name.endswith("_where") for name in index.get("dialect_options", {}))


def _type_name(data_type: TypeEngine[Any], dialect: sa.Dialect) -> str:
    """Return the database's name of a type, without a collation."""
    try:
        name = data_type.compile(dialect=dialect).lower()
    except (CompileError, NotImplementedError):
        return "of an unknown type"
    name = re.sub(r" (collate|character set) \S+", "", name)
    name = name.removesuffix(" without time zone")
    return re.sub(r"^(time(?:stamp)?)(.*) with time zone$", r"\1tz\2", name)
