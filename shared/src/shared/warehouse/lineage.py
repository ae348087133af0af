"""Which columns of which tables a column of a SELECT is computed from, by sqlglot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope

from shared.warehouse.select import Select, TableName


@dataclass(frozen=True, order=True)
class ColumnSource:
    """A column of a table."""

    dataset: str
    table: str
    column: str


@dataclass(frozen=True)
class ColumnLineage:
    """Where a column comes from.

    Attributes:
        sources: the columns that it is computed from, sorted; none for a constant or `count(*)`.
        is_copy: whether it is one of them, unchanged, maybe under another name.
    """

    sources: tuple[ColumnSource, ...]
    is_copy: bool


class LineageError(Exception):
    """The lineage cannot be computed; the message gives the reason."""


def column_lineage(
    select: Select, columns: Mapping[TableName, Sequence[str]]
) -> dict[str, ColumnLineage]:
    """Return where each column of a SELECT comes from, by column (`str.casefold`).

    Args:
        select: the SELECT.
        columns: the columns of the tables that it reads, for `*` and for columns without a table's name.

    Raises:
        LineageError: sqlglot cannot resolve the SELECT.
    """
    schema: dict[str, object] = {}
    names: dict[tuple[str, str, str], ColumnSource] = {}
    for (dataset, table), of_table in columns.items():
        tables: dict[str, object] = schema.setdefault(dataset, {})  # type: ignore[assignment]
        tables[table] = dict.fromkeys(of_table, "unknown")
        for column in of_table:
            source = ColumnSource(dataset, table, column)
            names[dataset.casefold(), table.casefold(), column.casefold()] = source
    try:
        qualified = qualify(
            select.parsed.copy(),
            schema=schema,
            dialect="duckdb",
            validate_qualify_columns=False,
            identify=False,
        )
        scope = build_scope(qualified)
        if scope is None or qualified.is_star:
            raise LineageError("its columns cannot be resolved")
        nodes = lineage(None, qualified, scope=scope, dialect="duckdb")
        return {column.casefold(): _of_column(node, names) for column, node in nodes.items()}
    except (SqlglotError, ValueError, KeyError, RecursionError) as error:
        raise LineageError(" ".join(str(error).split())) from None


def _of_column(root: Node, names: Mapping[tuple[str, str, str], ColumnSource]) -> ColumnLineage:
    sources = set()
    for node in root.walk():
        if not node.downstream and isinstance(node.source, exp.Table):
            column = parse_one(node.name, dialect="duckdb", into=exp.Column).name
            key = (node.source.db.casefold(), node.source.name.casefold(), column.casefold())
            if key in names:
                sources.add(names[key])
    return ColumnLineage(tuple(sorted(sources)), is_copy=_is_copy(root))


def _is_copy(node: Node) -> bool:
    """Return whether each step from a column to its source only gives it another name."""
    while node.downstream:
        if len(node.downstream) > 1 or not isinstance(node.expression.unalias(), exp.Column):
            return False
        (node,) = node.downstream
    return isinstance(node.source, exp.Table)
