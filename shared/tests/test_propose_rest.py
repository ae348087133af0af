"""An answer of an API proposes a source that loads all pages, and replays the recorded ones without it."""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from shared.cli.rest_code import rest_summary, write_rest_source
from shared.sources.drop_folder import InvalidFileError
from shared.sources.proposals.rest import ApiProposal, propose_rest

Writer = Callable[[ApiProposal], Any]

ACCEPTED = "hunter22-hunter22"
ROWS: list[dict[str, Any]] = [
    {
        "id": number,
        "name": f"name {number}",
        "price": number + 0.25,
        "orderedAt": "2025-03-10T12:00:00Z",
        "customer": {"id": number % 3, "city": None if number % 2 else "Bern"},
        "items": [{"sku": "a", "count": 1}],
        "tags": ["x"],
    }
    for number in range(1, 8)
]
SIZE = 3


class Api(BaseHTTPRequestHandler):
    """Serves the rows in pages of three, in the style that the path names."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = dict(parse_qsl(parts.query))
        style = parts.path.strip("/").rpartition("/")[2]
        base = f"http://{self.headers['Host']}/v1/{style}"
        if style == "secured" and asked.get("api_key") != ACCEPTED:
            self.send(401, {"error": "no key"})
        elif style == "html":
            self.send(200, "<html>", kind="text/html")
        elif style == "broken":
            self.send(200, '{"a": 1,', kind="application/json")
        else:
            self.send(*self.answer(style, asked, base))

    def answer(self, style: str, asked: Mapping[str, str], base: str) -> tuple[Any, ...]:
        page = int(asked.get("page", 1))
        after = ROWS[(page - 1) * SIZE : page * SIZE]
        more = f"{base}?page={page + 1}" if page * SIZE < len(ROWS) else None
        start = int(asked.get("offset", asked.get("skip", 0)))
        some = ROWS[start : start + int(asked.get("limit", SIZE))]
        number = int(asked.get("page", 0)) * SIZE
        position = int(asked.get("cursor") or 0)
        rest = position + SIZE
        key = f"&api_key={ACCEPTED}"
        answers: dict[str, tuple[Any, ...]] = {
            "list": (ROWS,),
            "many": ([{"id": each} for each in range(150)],),
            "one": (ROWS[0],),
            "next": ({"data": after, "next": more},),
            "secured": ({"data": after, "next": more and more + key, "self": base + key},),
            "nested_next": ({"meta": {"links": {"next": more}}, "rows": after},),
            "last_next": ({"results": ROWS, "next": None},),
            "pages": ({"items": after, "page": page, "total_pages": 3},),
            "page_param": (after,),
            "endless": (after or ROWS[-1:],),
            "endless_offset": (some or ROWS[-1:],),
            "page_zero": (ROWS[number : number + SIZE],),
            "offset_total": ({"items": some, "offset": start, "limit": SIZE, "total": len(ROWS)},),
            "offset_param": (some,),
            "skip_param": (some,),
            "header": (after, {"Link": f'<{more}>; rel="next"'} if more else {}),
            "cursor": ({"data": ROWS[position:rest], "next_cursor": str(rest) * (rest < 7)},),
            "nothing": ({"ok": True, "rows": []},),
        }
        return (200, *answers[style]) if style in answers else (404, {"error": "no such path"})

    def send(
        self,
        status: int,
        body: Any,
        headers: Mapping[str, str] = {},
        kind: str = "application/json",
    ) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    """The base URL of the API."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


STYLES: Mapping[str, Mapping[str, Any]] = {
    "list": {"type": "single_page"},
    "next": {"type": "json_link", "next_url_path": "next"},
    "nested_next": {"type": "json_link", "next_url_path": "meta.links.next"},
    "last_next": {"type": "json_link", "next_url_path": "next"},
    "header": {"type": "header_link"},
    "pages": {
        "type": "page_number", "base_page": 1, "page_param": "page", "total_path": "total_pages"
    },
    "page_param?page=1": {
        "type": "page_number", "base_page": 1, "page_param": "page", "total_path": None
    },
    "page_zero?page=0": {
        "type": "page_number", "base_page": 0, "page_param": "page", "total_path": None
    },
    "offset_total": {
        "type": "offset", "limit": 3, "offset": 0, "offset_param": "offset",
        "limit_param": "limit", "total_path": "total",
    },
    "offset_param?limit=2": {
        "type": "offset", "limit": 2, "offset": 0, "offset_param": "offset",
        "limit_param": "limit", "total_path": None,
    },
    "skip_param?limit=2&skip=0": {
        "type": "offset", "limit": 2, "offset": 0, "offset_param": "skip",
        "limit_param": "limit", "total_path": None,
    },
    "cursor": {"type": "cursor", "cursor_path": "next_cursor", "cursor_param": "cursor"},
}  # fmt: skip
"""What a request proposes as its pages."""


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Writer]:
    """Imports the module that is written for a proposal."""

    def write(found: ApiProposal) -> Any:
        package = tmp_path / "package"
        package.mkdir()
        write_rest_source(package, "orders", found)
        spec = spec_from_file_location("proposed_rest_source", package / "source.py")
        assert spec
        assert spec.loader
        module = module_from_spec(spec)
        sys.modules[spec.name] = module  # dlt looks there for the module of a source
        spec.loader.exec_module(module)
        return module

    yield write
    sys.modules.pop("proposed_rest_source", None)


def ids(module: Any) -> list[int]:
    return [row["id"] for row in module.orders_source()]


@pytest.mark.parametrize("request_path", STYLES)
def test_all_pages_load_and_the_recorded_ones_without_the_api(
    api: str, written: Writer, monkeypatch: pytest.MonkeyPatch, request_path: str
) -> None:
    found = propose_rest(f"{api}/{request_path}")
    assert found.paginator == STYLES[request_path]
    assert (found.base_url, found.path) == (api, request_path.partition("?")[0])
    module = written(found)
    assert ids(module) == [row["id"] for row in ROWS[: found.rows]], "recorded"
    monkeypatch.setenv("SOURCES__ORDERS__BASE_URL", api)
    assert ids(module) == [row["id"] for row in ROWS]


def test_columns_nested_tables_and_the_key_are_proposed(
    api: str, tmp_path: Path, written: Writer
) -> None:
    found = propose_rest(f"{api}/list")
    assert found.columns == {
        "id": {"data_type": "bigint"},
        "name": {"data_type": "text"},
        "price": {"data_type": "double"},
        "ordered_at": {"data_type": "timestamp"},
        "customer__id": {"data_type": "bigint"},
        "customer__city": {"data_type": "text"},
    }
    assert found.nested == {"items": ["sku", "count"], "tags": ["value"]}
    assert found.key == ("id",)
    text = rest_summary("orders", found)
    assert "Nested tables: orders__items and orders__tags." in text
    assert "Check the pages: nothing says that there are more than one." in text
    written(found)
    assert "`orders__items`: sku, count" in (tmp_path / "package" / "source.py").read_text()


def test_at_most_100_rows_are_recorded(api: str, written: Writer) -> None:
    found = propose_rest(f"{api}/many")
    assert found.rows == 150
    assert ids(written(found)) == list(range(100))


@pytest.mark.parametrize("request_path", ["endless?page=1", "endless_offset?offset=0&limit=3"])
def test_pages_beyond_the_end_that_have_rows_are_named(api: str, request_path: str) -> None:
    (remark,) = propose_rest(f"{api}/{request_path}").remarks
    assert remark.startswith("Check the pages: a page far beyond the end has rows: set maximum_")


def test_a_single_object_is_one_row(api: str) -> None:
    found = propose_rest(f"{api}/one")
    assert found.rows == 1


def test_a_key_is_in_no_file_and_goes_to_the_settings(
    api: str, tmp_path: Path, written: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = propose_rest(f"{api}/secured?api_key={ACCEPTED}&active=yes")
    assert (found.key_param, found.params) == ("api_key", {"active": "yes"})
    module = written(found)
    files = [file.read_bytes() for file in (tmp_path / "package").rglob("*") if file.is_file()]
    assert files
    assert not any(ACCEPTED.encode() in content for content in files)
    assert ACCEPTED not in rest_summary("orders", found)
    assert "SOURCES__ORDERS__API_KEY" in rest_summary("orders", found)
    assert ids(module) == [1, 2, 3], "the recorded answer needs no key"
    monkeypatch.setenv("SOURCES__ORDERS__BASE_URL", api)
    monkeypatch.setenv("SOURCES__ORDERS__API_KEY", ACCEPTED)
    assert ids(module) == [row["id"] for row in ROWS]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone", "answers with 404 .*Check the URL"),
        ("secured?api_key=wrong-key-1", r"\?api_key=\*\*\* answers with 401"),
        ("html", "answers with text/html and not with JSON. Give the URL of a file"),
        ("broken", "answers with wrong JSON: "),
        ("nothing", "answers without a list of objects"),
        (
            "list?api_key=a&token=b",
            "has a user, or several keys: create the project with --from api",
        ),
    ],
)
def test_what_proposes_nothing_is_one_error_with_the_next_step(
    api: str, path: str, message: str
) -> None:
    with pytest.raises(InvalidFileError, match=message):
        propose_rest(f"{api}/{path}")
