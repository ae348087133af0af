"""Propose a source for a JSON API from the answer to one request."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlencode, urlsplit

import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema
from dlt.sources.helpers.requests import Response
from dlt.sources.helpers.rest_client.detector import find_response_page_data

from shared.redaction import is_secret_name, redact
from shared.sources.drop_folder import InvalidFileError
from shared.sources.files.json_text import DECODER
from shared.sources.names import column_name
from shared.sources.proposals.download import open_url
from shared.sources.proposals.proposal import find_key_of_table
from shared.sources.proposals.rest_pages import guess_pages
from shared.sources.proposals.typed_files import json_type

MAX_ANSWER_BYTES = 50_000_000
"""How large the answer of an API may be."""

SAMPLE_ROWS = 100
"""How many rows of the answer are recorded."""

_KEYS = {"appid", "app_id", "sig", "signature"}
"""Names of parameters that are keys although they do not sound like one."""


@dataclass(frozen=True)
class ApiProposal:
    """What one answer of an API says about its rows and pages.

    Attributes:
        base_url: the URL up to the path.
        path: the last part of the path.
        params: the other parameters of the request.
        key_param: the parameter that is a key; "" if there is none.
        data_selector: where the rows are in an answer.
        paginator: how the API pages, as dlt's configuration.
        rows: how many rows were read.
        columns: the columns of the table, with dlt's types.
        nested: the names in the lists of a row, by nested table.
        key: the columns whose values identify a row.
        notes: what a person should check, by column.
        remarks: what else a person should check.
        recorded: the answers to record, by the name of their file. They have one page, and no key.
    """

    base_url: str
    path: str
    params: Mapping[str, str]
    key_param: str
    data_selector: str
    paginator: Mapping[str, Any]
    rows: int
    columns: Mapping[str, TColumnSchema]
    nested: Mapping[str, Sequence[str]]
    key: Sequence[str]
    notes: Mapping[str, str]
    remarks: Sequence[str]
    recorded: Mapping[str, Any]


def propose_rest(url: str) -> ApiProposal:
    """Request a URL and propose a source from its answer.

    Raises:
        InvalidFileError: the answer is not JSON, or has no list of objects; the message is the next step.
    """
    parts = urlsplit(url)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    secrets = [name for name in parameters if is_secret_name(name) or name.lower() in _KEYS]
    if parts.username or len(secrets) > 1:
        raise InvalidFileError(
            f"{redact(url)} has a user, or several keys: create the project with --from api, and declare "
            "how the API is used"
        )
    base, _, path = parts.path.rstrip("/").rpartition("/")
    path += "/" * parts.path.endswith("/")
    address = f"{parts.scheme}://{parts.netloc}{parts.path}"

    def request(changed: Mapping[str, Any]) -> Response:
        return _answer(f"{address}?{urlencode({**parameters, **changed})}")

    def fetch(changed: Mapping[str, Any]) -> list[Any]:
        try:
            return _rows(request(changed).json())[1]
        except (InvalidFileError, ValueError):  # such as 404 for a page that there is not
            return []

    response = _answer(url)
    try:
        body = DECODER.decode(response.text)
    except ValueError as error:
        raise InvalidFileError(f"{redact(url)} answers with wrong JSON: {error}") from None
    selector, rows = _rows(body)
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InvalidFileError(
            f"{redact(url)} answers without a list of objects. Give the URL of such an answer, or create "
            "the project with --from api"
        )
    pages = guess_pages(response, _rows(response.json())[1], parameters, fetch)
    columns, notes = _columns(rows)
    others = parameters.keys() - {*secrets, *pages.parameters}
    params = {name: value for name, value in parameters.items() if name in others}
    secret = parameters[secrets[0]] if secrets else ""
    return ApiProposal(
        base_url=f"{parts.scheme}://{parts.netloc}{base}",
        path=path,
        params=params,
        key_param=secrets[0] if secrets else "",
        data_selector=".".join(selector),
        paginator=pages.paginator,
        rows=len(rows),
        columns=columns,
        nested=_nested(rows),
        key=_key(rows, columns),
        notes=notes,
        remarks=[f"Check the pages: {pages.note}"] if pages.note else [],
        recorded=dict(_recorded(path, params, pages.paginator, _without(body, secret), selector)),
    )


def _answer(url: str) -> Response:
    """Return the complete answer, if it is JSON and not too large."""
    body = BytesIO()
    with open_url(url) as response:
        kind = response.headers.get("Content-Type", "")
        if "json" not in kind:
            raise InvalidFileError(
                f"{redact(url)} answers with {kind or 'no content type'} and not with JSON. Give the URL of a "
                "file, such as https://host/export.csv, or of an API's answer in JSON"
            )
        for chunk in response.iter_content(1 << 20):
            body.write(chunk)
            if body.tell() > MAX_ANSWER_BYTES:
                raise InvalidFileError(
                    f"{redact(url)} answers with more than {MAX_ANSWER_BYTES:,} bytes: ask for fewer rows"
                )
    whole = Response()
    whole.status_code, whole.headers, whole.encoding = 200, response.headers, "utf-8"
    body.seek(0)
    whole.raw = body
    return whole


def _rows(body: Any) -> tuple[tuple[str, ...], list[Any]]:
    """Return where the rows are in an answer, and the rows; a single object is one row."""
    path, rows = find_response_page_data(body)
    return path, [rows] if isinstance(rows, dict) else rows if isinstance(rows, list) else []


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a row as dlt names them: those of an object are columns of their own."""
    for name, value in row.items():
        column = f"{prefix}{column_name(name)}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{column}__")
        else:
            yield column, value


def _columns(rows: Sequence[Any]) -> tuple[dict[str, TColumnSchema], dict[str, str]]:
    values: dict[str, list[Any]] = {}
    for name, value in chain.from_iterable(map(_flat, rows)):
        values.setdefault(name, []).append(value)
    parents = {name.rpartition("__")[0] for name in values}
    columns: dict[str, TColumnSchema] = {}
    notes = {}
    for name, found in values.items():
        filled = [value for value in found if value is not None and value != {}]
        if any(isinstance(value, list) for value in filled) or (name in parents and not filled):
            continue  # a nested table, or an object that some rows do not have
        columns[name], note = json_type(filled)
        if columns[name].get("scale"):  # the client reads fractions as doubles
            columns[name], note = {"data_type": "double"}, ""
        if note:
            notes[name] = note
    return columns, notes


def _nested(rows: Sequence[Any]) -> dict[str, list[str]]:
    """Return the columns of each nested table; those of a list of values are `value`."""
    found: dict[str, dict[str, None]] = {}
    for name, value in chain.from_iterable(map(_flat, rows)):
        for each in value if isinstance(value, list) else ():
            names = [column for column, _ in _flat(each)] if isinstance(each, dict) else ["value"]
            found.setdefault(name, {}).update(dict.fromkeys(names))
    return {name: [*names] for name, names in found.items()}


def _key(rows: Sequence[Any], columns: Mapping[str, TColumnSchema]) -> Sequence[str]:
    flat = [dict(_flat(row)) for row in rows]
    filled: dict[str, TColumnSchema] = {
        name: {**hints, "nullable": False}
        for name, hints in columns.items()
        if all(row.get(name) is not None for row in flat) and hints["data_type"] != "json"
    }
    if not filled:
        return ()
    texts = {name: [str(row[name]) for row in flat] for name in filled}
    return find_key_of_table(pa.table(texts), filled)


def _without(value: Any, secret: str) -> Any:
    """Return an answer without a key, which may be in its links."""
    if isinstance(value, dict):
        return {name: _without(each, secret) for name, each in value.items()}
    if isinstance(value, list):
        return [_without(each, secret) for each in value]
    for form in {secret, quote(secret, safe=""), quote_plus(secret)} - {""}:
        value = value.replace(form, "***") if isinstance(value, str) else value
    return value


def _recorded(
    path: str,
    params: Mapping[str, str],
    paginator: Mapping[str, Any],
    body: Any,
    selector: tuple[str, ...],
) -> Iterator[tuple[str, Any]]:
    """Yield the answers to the requests that a load of the first rows sends, by the names of their files."""
    rows = _rows(body)[1][:SAMPLE_ROWS]
    sent: dict[str, Any] = {**params}
    last: Mapping[str, Any] | None = None
    match paginator["type"]:
        case "page_number":
            sent[paginator["page_param"]] = paginator["base_page"]
            last = {**sent, paginator["page_param"]: paginator["base_page"] + 1}
            pages = 1
        case "offset":
            sent[paginator["offset_param"]] = paginator["offset"]
            sent[paginator["limit_param"]] = paginator["limit"]
            last = {**sent, paginator["offset_param"]: paginator["offset"] + paginator["limit"]}
            pages = paginator["offset"] + len(rows)
    changes: dict[str, Any] = {}
    if total := paginator.get("total_path"):
        changes[total], last = pages, None
    for end in ("next_url_path", "cursor_path"):
        if end in paginator:
            changes[paginator[end]] = None
    yield _file(path, sent), _changed(body, {**changes, ".".join(selector): rows})
    if last is not None:
        yield _file(path, last), _changed(body, {**changes, ".".join(selector): []})


def _file(path: str, params: Mapping[str, Any]) -> str:
    name = unquote(f"{path}/{urlencode(params)}" if params else path)
    if ".." in name.split("/"):
        raise InvalidFileError(f"{name} has '..' in it: create the project with --from api")
    return f"{name}.json"


def _changed(body: Any, changes: Mapping[str, Any]) -> Any:
    """Return an answer with other values at some paths; a single object has no rows to change."""
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        if name == "$":
            body = value if isinstance(body, list) else body
        else:
            body = {**body, name: _changed(body[name], {rest: value}) if rest else value}
    return body
