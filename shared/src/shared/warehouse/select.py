"""Check the SQL of a table that is made from other tables: one SELECT in DuckDB's dialect."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import ParseError, SqlglotError

from shared.warehouse.errors import SelectError
from shared.warehouse.stored_names import OF_ENGINES

TableName = tuple[str, str]
"""A dataset and a table."""

MAX_NAME_BYTES = 63
"""Of Postgres, which cuts longer names silently. DuckDB has no limit, and SQL files are for both."""

_TEMPLATE_TOKENS = (TokenType.BLOCK_START, TokenType.BLOCK_END)
_PARAMETER_TOKENS = (TokenType.PLACEHOLDER, TokenType.PARAMETER)
_UNDERLINE = re.compile(r"\x1b\[\d+m")  # sqlglot marks a place for a terminal


@dataclass(frozen=True)
class Select:
    """A checked SELECT.

    Attributes:
        sql: its text.
        parsed: its tree.
        tables: the tables that it reads, sorted.
        columns: the names of its columns, in order; empty if it has a `*`.
        description: the comment before it.
        column_descriptions: the comments on its columns, by column (`str.casefold`).
    """

    sql: str
    parsed: exp.Query
    tables: tuple[TableName, ...]
    columns: tuple[str, ...]
    description: str
    column_descriptions: Mapping[str, str]


def parse_select(sql: str, name: str) -> Select:
    """Check a SELECT, and return it with the tables that it reads.

    Args:
        sql: one SELECT in DuckDB's dialect; each table is named `dataset.table`.
        name: where the text is from, for messages: a file.

    Raises:
        SelectError: it does not parse, is not one SELECT, has a template or a parameter, or reads
            something else than a table of a dataset. The message has the name, and the line and the
            column where it has one.
    """
    try:
        tokens = sqlglot.tokenize(sql, read="duckdb")
        _reject_templates(tokens, name)
        statements = [one for one in sqlglot.parse(sql, dialect="duckdb") if one is not None]
    except SqlglotError as error:
        raise SelectError(f"{name}{_place_and_reason(error)}") from None
    statements = [one for one in statements if not isinstance(one, exp.Semicolon)]
    if len(statements) != 1:
        raise SelectError(
            f"{name} has {len(statements)} statements, and must have one SELECT. Write one file for each table."
        )
    (parsed,) = statements
    changes = next(parsed.find_all(exp.DML, exp.DDL, exp.Into, exp.Command), None)
    if not isinstance(parsed, exp.Query) or (
        changes is not None and not isinstance(changes, exp.Query)
    ):
        kind = type(parsed if changes is None else changes).__name__.upper()
        raise SelectError(
            f"{name} has {kind}, and must be one SELECT: its rows become the table of the file's name."
        )
    _reject_unnamed_columns(parsed, name)
    return Select(
        sql=sql,
        parsed=parsed,
        tables=tuple(sorted(set(_tables(parsed, name)))),
        columns=() if any(map(_is_star, parsed.selects)) else tuple(parsed.named_selects),
        description=_description(parsed),
        column_descriptions=_column_descriptions(parsed),
    )


def _place_and_reason(error: SqlglotError) -> str:
    """Return where a text does not parse, and why; what cannot be split into words has no place."""
    if not isinstance(error, ParseError) or not error.errors:
        return f": {' '.join(_UNDERLINE.sub('', str(error)).split())}"
    first = error.errors[0]
    reason = str(first["description"]).partition(" for <class")[0].partition(" but got <Token")[0]
    return f", line {first['line']}, column {first['col']}, near {first['highlight']}: {reason}"


def _reject_templates(tokens: list[Token], name: str) -> None:
    """Reject Jinja, which DuckDB's dialect reads as a struct or not at all, and parameters."""
    braces = {TokenType.L_BRACE}
    for token, following in zip(tokens, [*tokens[1:], None], strict=False):
        doubled = (
            following is not None
            and {token.token_type, following.token_type} == braces
            and token.end + 1 == following.start
        )
        if doubled or token.token_type in _TEMPLATE_TOKENS:
            raise SelectError(
                f"{name}, line {token.line}, column {token.col}: templates such as {{{{ }}}} and {{% %}} are "
                "not filled in. Write plain SQL with tables named dataset.table; for templates, use dbt."
            )
        if token.token_type in _PARAMETER_TOKENS or token.text == "?::":
            raise SelectError(
                f"{name}, line {token.line}, column {token.col}: {token.text} is a parameter, and nothing "
                "gives it a value. Write the value."
            )


def _reject_unnamed_columns(parsed: exp.Query, name: str) -> None:
    """Reject columns to which each engine gives another name."""
    names = [""]
    for number, column in enumerate(parsed.selects, 1):
        if _is_star(column):
            continue
        if len(column.output_name.encode()) > MAX_NAME_BYTES:
            raise SelectError(
                f"{name}: column {number}, {column.output_name}, is longer than the {MAX_NAME_BYTES} bytes "
                "that Postgres has for a name. Give it a shorter one with AS."
            )
        if (found := column.output_name.casefold()) in names:
            known = f"is a second {column.output_name}" if found else "has no name"
            raise SelectError(
                f"{name}: column {number}, {column.sql('duckdb', comments=False)}, {known}. Give it a name with AS."
            )
        names.append(found)


def _is_star(column: exp.Expr) -> bool:
    """Return whether what a SELECT selects is several columns."""
    return column.is_star or isinstance(column, exp.Columns)


def _tables(parsed: exp.Query, name: str) -> Iterator[TableName]:
    subqueries = {cte.alias.casefold() for cte in parsed.find_all(exp.CTE)}
    for table in parsed.find_all(exp.Table):
        if isinstance(table.this, exp.GenerateSeries):
            continue
        if not isinstance(table.this, exp.Identifier):
            raise SelectError(
                f"{name} reads {table.this.sql('duckdb')}, and may read only tables of the warehouse. Load "
                "what it reads with a pipeline first."
            )
        if not table.db and table.name.casefold() in subqueries:
            continue
        if not table.db or table.catalog:
            place = f", line {line}" if (line := table.this.meta.get("line")) else ""
            raise SelectError(
                f"{name}{place}: the table {'.'.join(part.name for part in table.parts)} must be named dataset.table, such as "
                f"nasa_neo.{table.name}."
            )
        # A name without quotes has no case.
        dataset, own = (
            part.name if part.args.get("quoted") else part.name.lower()
            for part in (table.args["db"], table.this)
        )
        if dataset.lower() in OF_ENGINES:
            raise SelectError(
                f"{name} reads {dataset}.{own}, which engines fill differently. Read a table of a dataset."
            )
        yield dataset, own


def _description(parsed: exp.Query) -> str:
    """Return the comment before the SELECT, in one line."""
    first: exp.Expr = parsed
    while isinstance(first, exp.SetOperation):
        first = first.this
    with_ = parsed.args.get("with_")
    comments = (with_.comments if with_ else None) or first.comments or parsed.comments or []
    return " ".join(" ".join(comments).split())


def _column_descriptions(parsed: exp.Query) -> dict[str, str]:
    """Return the comments on the columns of the SELECT; in a UNION, of its first."""
    return {
        column.alias_or_name.casefold(): " ".join(" ".join(comments).split())
        for column in parsed.selects
        if (comments := [text for part in column.walk() for text in part.comments or ()])
    }
