"""What `etl new NAME --from URL` writes for a JSON API: its requests, its columns, and recorded answers."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli.proposals import scaffold_errors

if TYPE_CHECKING:  # what it imports takes long
    from shared.sources.proposals.rest import ApiProposal

_SOURCE = '''"""The source of {title}: a JSON API, with all of its pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dlt
from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltResource
from dlt.sources.rest_api import rest_api_resources
from dlt.sources.rest_api.typing import ClientConfig, RESTAPIConfig

from shared.sources.recorded import replay_api

RECORDED = Path(__file__).parent / "recorded"

COLUMNS: dict[str, TColumnSchema] = {{
{columns}
}}
"""The columns, proposed from {rows:,} rows of one answer.{nested}"""


def requests_for(client: ClientConfig) -> RESTAPIConfig:
    """Return the request, as a configuration of dlt's REST API source."""
    return {{
        "client": client,
        "resources": [
            {{
                "name": "{name}",
                "endpoint": {{
                    "path": {path!r},
                    "params": {params!r},
                    "data_selector": {data_selector!r},
                    "paginator": {paginator!r},
                }},
            }}
        ],
    }}


@contextmanager
def client() -> Iterator[ClientConfig]:
    """Yield the API of the settings, or a local server with the recorded answers."""
    if url := dlt.config.get("sources.{name}.base_url", str):
        yield {{"base_url": url{auth}}}
    else:
        with replay_api(RECORDED) as url:
            yield {{"base_url": url}}


@dlt.source
def {name}_source() -> DltResource:
    """Return the resource `{name}` with all rows of the API."""

    @dlt.resource(name="{name}", columns=COLUMNS)
    def rows() -> Iterator[Any]:
        """{capitalized}, one row each."""
        with client() as api:
            (responses,) = rest_api_resources(requests_for(api))
            yield from responses

    return rows
'''

_AUTH = """,
            "auth": {{
                "type": "api_key",
                "name": {param!r},
                "location": "query",
                "api_key": dlt.secrets["sources.{name}.api_key"],
            }},
        """


@dataclass(frozen=True)
class FromApi:
    """A project for a JSON API, written from its proposal.

    Attributes:
        proposal: what an answer of the API proposes.
    """

    proposal: "ApiProposal"

    def answers(self) -> dict[str, str | bool]:
        """Return the answers to copier's questions."""
        key = repr([*self.proposal.key]) if self.proposal.key else ""
        return {"source": "rest", "key": key, "api_key": bool(self.proposal.key_param)}

    def write(self, project: Path, name: str) -> None:
        """Write into a rendered project what depends on the API."""
        write_rest_source(project / "src" / f"{name}_etl", name, self.proposal)

    def summary(self, name: str) -> str:
        """Return what was proposed, and what a person should check."""
        return rest_summary(name, self.proposal)

    def commands(self, name: str) -> dict[str, str]:
        """Return what to run, with its purpose."""
        run = f"uv run etl run {name}_etl"
        url = f"{url_setting(name)}={shlex.quote(self.proposal.base_url)}"
        return {run: "load the recorded answer", f"{url} {run}": "load all rows of the API"}


def propose_api(url: str) -> FromApi:
    """Return the project that the answer of an API proposes.

    Raises:
        ScaffoldError: nothing can be proposed.
    """
    from shared.sources.proposals.rest import propose_rest

    with scaffold_errors():
        return FromApi(propose_rest(url))


def write_rest_source(package: Path, name: str, proposal: "ApiProposal") -> None:
    """Write the source and the recorded answers of a project that loads from an API.

    Args:
        package: the folder of the project's package.
        name: the name of the pipeline.
        proposal: what an answer of the API proposes.
    """
    from shared.sources.files.json_text import dump_json

    for file, answer in proposal.recorded.items():
        target = package / "recorded" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dump_json(answer), encoding="utf-8")
    (package / "source.py").write_text(_rest_source(name, proposal))


def _rest_source(name: str, proposal: "ApiProposal") -> str:
    columns = []
    for column, hints in proposal.columns.items():
        if note := proposal.notes.get(column):
            columns.append(f"    # {note}")
        columns.append(f"    {column!r}: {dict(hints)!r},")
    tables = [f"`{name}__{column}`: {', '.join(each)}" for column, each in proposal.nested.items()]
    nested = f" Nested tables:\n{chr(10).join(tables)}.\n" if tables else ""
    title = name.replace("_", " ")
    return _SOURCE.format(
        name=name,
        title=title,
        capitalized=title.capitalize(),
        columns="\n".join(columns),
        rows=proposal.rows,
        nested=nested,
        path=proposal.path,
        params=dict(proposal.params),
        data_selector=proposal.data_selector,
        paginator=dict(proposal.paginator),
        auth=_AUTH.format(param=proposal.key_param, name=name) if proposal.key_param else "",
    )


def rest_summary(name: str, proposal: "ApiProposal") -> str:
    """Return what was proposed, and what a person should check."""
    key = " and ".join(proposal.key)
    tables = " and ".join(f"{name}__{column}" for column in proposal.nested)
    lines = [
        f"Proposed {len(proposal.columns)} columns from {proposal.rows:,} rows of an answer; "
        + (f"{key} identifies a row." if key else "no one or two columns identify a row."),
        f"Pages: {proposal.paginator['type']}.",
        *([f"Nested tables: {tables}."] if tables else []),
        *(f"{remark}." for remark in proposal.remarks),
        *(f"Check {column}: {note}." for column, note in proposal.notes.items()),
        *(
            [
                f"The key {proposal.key_param} was not written anywhere: set {key_setting(name)} in .env."
            ]
            if proposal.key_param
            else []
        ),
        f"Edit them in projects/{name}_etl/src/{name}_etl/source.py.",
    ]
    return "\n".join(lines)


def key_setting(name: str) -> str:
    """Return the variable with the key of a pipeline's API."""
    return f"SOURCES__{name.upper()}__API_KEY"


def url_setting(name: str) -> str:
    """Return the variable with the URL of a pipeline's API."""
    return f"SOURCES__{name.upper()}__BASE_URL"
