"""What `etl new NAME --from URL` writes for a database: the declaration of its tables, and made-up ones."""

import json
import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli.proposals import scaffold_errors

if TYPE_CHECKING:  # what it imports takes long
    from shared.sources.proposals.database import DatabaseProposal, TableProposal

_WIDTH = 100
_MAX_NAMES = 30  # of columns, in a comment

_SOURCE = '''"""The source of {title}: tables of a database, each with its mode."""

from dlt.extract import DltSource

from shared.sources.database import Table, database_source

TABLES = [
{tables}
]
"""The tables, proposed from the catalog. What a mode reads and replaces: docs/databases.md."""


def {name}_source() -> DltSource:
    """Return the source of the tables. The database is read when they are loaded."""
    return database_source(TABLES, name="{name}")
'''

EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mssql": "mssql"}
"""The extra of `shared` that a project needs, by database."""


@dataclass(frozen=True)
class FromDatabase:
    """A project for the tables of a database, written from their proposal.

    Attributes:
        proposal: what the catalog proposes.
    """

    proposal: "DatabaseProposal"

    def answers(self) -> dict[str, str | bool]:
        """Return the answers to copier's questions."""
        extra = EXTRAS.get(self.proposal.dialect)
        return {
            "source": "database",
            "dialect": self.proposal.dialect,
            "dependency": f"shared[{extra}]" if extra else "shared",
        }

    def write(self, project: Path, name: str) -> None:
        """Write into a rendered project the declarations, the made-up tables and the credentials."""
        from shared.sources.proposals.made_up_tables import made_up_sql

        source = project / "src" / f"{name}_etl" / "source.py"
        source.write_text(_source(name, self.proposal), encoding="utf-8")
        made_up = project / "tests" / "made_up.sql"
        made_up.write_text(made_up_sql(self.proposal), encoding="utf-8")
        _write_secrets(project, name, self.proposal.credentials)

    def summary(self, name: str) -> str:
        """Return what was proposed, and what a person should check."""
        return database_summary(name, self.proposal)

    def commands(self, name: str) -> dict[str, str]:
        """Return what to run, with its purpose."""
        return {f"uv run etl run {name}_etl": "load what is new in the database"}


def is_url_of_database(source: str) -> bool:
    """Return whether `--from` may be the URL of a database, of a supported kind or not."""
    scheme, separator, _ = source.partition("://")
    return bool(separator) and scheme not in ("http", "https")


def propose_tables(url: str, folder: Path) -> FromDatabase:
    """Return the project that the tables of a database propose.

    Args:
        url: the URL of the database, with its password.
        folder: where a relative path of a SQLite file starts.

    Raises:
        ScaffoldError: nothing can be proposed.
    """
    from shared.sources.proposals.database import propose_database

    with scaffold_errors():
        return FromDatabase(propose_database(url, folder))


def credentials_setting(name: str) -> str:
    """Return the variable with the URL of a pipeline's database."""
    return f"SOURCES__{name.upper()}__CREDENTIALS"


def database_summary(name: str, proposal: "DatabaseProposal") -> str:
    """Return what was proposed, and what a person should check."""
    modes = [table.mode for table in proposal.tables]
    counts = [f"{modes.count(mode)} {mode}" for mode in dict.fromkeys(sorted(modes))]
    folder = f"projects/{name}_etl"
    left_out = {t.relation.full_name: t.left_out for t in proposal.tables if t.left_out}
    to_load = (
        "To load such a column, take it out of exclude; to load it masked, also write, for example, "
        'masks={"email": Constant("***")}.'
    )
    lines = [
        f"Proposed {len(modes)} tables of {proposal.server}, by mode: {', '.join(counts)}.",
        *(
            f"Left out, by their names secret or personal: {table}: {', '.join(columns)}."
            for table, columns in left_out.items()
        ),
        *([to_load] if left_out else []),
        *(f"{remark}." for remark in proposal.remarks),
        f"The URL of the database is in {folder}/.dlt/secrets.toml, which git ignores.",
        f"On a server, set {credentials_setting(name)} instead.",
        f"Edit the tables in {folder}/src/{name}_etl/source.py.",
    ]
    return "\n".join(lines)


def _source(name: str, proposal: "DatabaseProposal") -> str:
    tables = [line for table in proposal.tables for line in _declaration(table)]
    return _SOURCE.format(
        title=name.replace("_", " "),
        name=name,
        tables="\n".join(f"    {line}" for line in tables),
    )


def _declaration(table: "TableProposal") -> Iterator[str]:
    """Yield the comments and the declaration of a table."""
    for note in (_contents(table), *table.notes):
        yield from (f"# {line}" for line in textwrap.wrap(note, _WIDTH - 6))
    relation = table.relation
    key = table.key[0] if len(table.key) == 1 else [*table.key]
    arguments = {
        "mode": table.mode,
        "schema": relation.schema,
        "key": key if table.mode in ("incremental", "mirror") else None,
        "cursor": table.cursor,
        "exclude": [*table.left_out],
        "table": table.target if table.target != relation.name else None,
    }
    given = [f"{argument}={value!r}" for argument, value in arguments.items() if value]
    yield f"Table({', '.join([repr(relation.name), *given])}),"


def _contents(table: "TableProposal") -> str:
    """Return how many rows a table has, and the names and types of the loaded columns."""
    relation = table.relation
    names = [name for name in relation.columns if name not in table.left_out]
    listed = [f"{name} {_type(table, name)}" for name in names[:_MAX_NAMES]]
    more = len(names) - len(listed)
    columns = ", ".join([*listed, *([f"and {more} more"] if more else [])])
    return f"{_size(table)}: {ascii(columns)[1:-1] if not columns.isprintable() else columns}."


def _size(table: "TableProposal") -> str:
    from shared.sources.proposals.database_catalog import SMALL

    rows = table.relation.rows
    if table.relation.is_view:
        return "A view"
    if rows < 0:
        return f"{SMALL:,} rows or more"
    return f"{'about ' * (rows >= SMALL)}{rows:,} row{'s' * (rows != 1)}"


def _type(table: "TableProposal", column: str) -> str:
    """Return the database's name of a column's type, and that it may not be NULL."""
    relation = table.relation
    return relation.types[column] + " not null" * (not relation.columns[column]["nullable"])


def _write_secrets(project: Path, name: str, credentials: str) -> None:
    """Write the credentials where dlt reads them for this project, for this user alone."""
    file = project / ".dlt" / "secrets.toml"
    file.parent.mkdir(exist_ok=True)
    # JSON's form of a text is one of TOML's.
    text = (
        "# Git ignores this file. On a server, set "
        f"{credentials_setting(name)} instead.\n"
        f"[sources.{name}]\ncredentials = {json.dumps(credentials, ensure_ascii=False)}\n"
    )
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as secrets:
        secrets.write(text)
