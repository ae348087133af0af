"""Guess how an API pages, from its first answer and from one request for the next page."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dlt.sources.helpers.requests import Response
from dlt.sources.helpers.rest_client.detector import (
    find_next_page_path,
    find_total_pages_path,
    header_links_detector,
    json_links_detector,
)

Fetch = Callable[[Mapping[str, Any]], list[Any]]
"""Returns the rows of the answer to a request with other parameters."""

_PAGE = ("page", "page_number", "pageNumber", "current_page", "p")
_OFFSET = ("offset", "skip", "start")
_LIMIT = ("limit", "per_page", "page_size", "pageSize", "size", "take")
_CURSOR = ("cursor", "after", "page_token", "pageToken", "next_token", "starting_after", "page")
_FAR = 1_000_000  # a page
_NEXT = ("next", "next_url", "next_page_url")
_TOTAL = ("total", "total_count", "totalCount", "total_results", "count")


class Pages(NamedTuple):
    """How an API pages.

    Attributes:
        paginator: dlt's configuration.
        parameters: the parameters of the request that the paginator sends itself.
        note: what a person should check.
    """

    paginator: dict[str, Any]
    parameters: tuple[str, ...] = ()
    note: str = ""


def guess_pages(
    response: Response, rows: list[Any], parameters: Mapping[str, str], fetch: Fetch
) -> Pages:
    """Return how an API pages.

    Args:
        response: the first answer.
        rows: its rows.
        parameters: the parameters of the request.
        fetch: requests another page.
    """
    values = _plain_values(response.json())
    if header_links_detector(response)[0]:
        return Pages({"type": "header_link"}, _of(parameters, _PAGE, _OFFSET))
    if json_links_detector(response)[0]:
        path, _ = find_next_page_path(response.json())
        return Pages(_link(".".join(path)), _of(parameters, _PAGE, _OFFSET))
    for guess in (_by_offset, _by_page, _by_cursor):
        if found := guess(rows, parameters, values, fetch):
            return found
    empty = next((path for path in values if path.split(".")[-1] in _NEXT), "")
    if empty:
        return Pages(_link(empty), note=f"{empty} is empty: there is one page now")
    return Pages({"type": "single_page"}, note="nothing says that there are more than one")


def _by_offset(
    rows: list[Any], parameters: Mapping[str, str], values: Mapping[str, Any], fetch: Fetch
) -> Pages | None:
    offset, limit = _name(_OFFSET, parameters, values), _name(_LIMIT, parameters, values)
    if not offset and limit not in parameters:
        return None
    name, limit = offset or _OFFSET[0], limit or _LIMIT[0]
    size = _number(parameters.get(limit, _last_names(values).get(limit))) or len(rows)
    total = next((path for path, value in values.items() if _is_total(path, value, rows)), None)
    is_last = total is not None and values[total] == len(rows)
    if not is_last and not _is_next(fetch({limit: size, name: size}), rows):
        return None
    paginator = {"type": "offset", "limit": size, "offset": 0, "offset_param": name}
    note = "" if total else _endless(fetch({limit: size, name: _FAR * size}), "maximum_offset")
    return Pages(paginator | {"limit_param": limit, "total_path": total}, (name, limit), note)


def _by_page(
    rows: list[Any], parameters: Mapping[str, str], values: Mapping[str, Any], fetch: Fetch
) -> Pages | None:
    total, _ = find_total_pages_path(_unflatten(values))
    name = _name(_PAGE, parameters, values)
    if not (name or total or _of(parameters, _LIMIT)):
        return None
    name = "page" if name in ("", "current_page") else name
    # Only if page 1 is not the first one, the pages begin with 0.
    first = int(fetch({name: 1}) == rows or _number(parameters.get(name)) > 0)
    if not total and not _is_next(fetch({name: first + 1}), rows):
        return None
    paginator = {"type": "page_number", "base_page": first, "page_param": name}
    note = "" if total else _endless(fetch({name: _FAR}), "maximum_page")
    return Pages(paginator | {"total_path": ".".join(total) if total else None}, (name,), note)


def _by_cursor(
    rows: list[Any], parameters: Mapping[str, str], values: Mapping[str, Any], fetch: Fetch
) -> Pages | None:
    path, cursor = find_next_page_path(_unflatten(values))
    if not path or cursor is None:
        return None
    for name in (*_of(parameters, _CURSOR), *_CURSOR):
        if _is_next(fetch({name: cursor}), rows):
            return Pages(
                {"type": "cursor", "cursor_path": ".".join(path), "cursor_param": name}, (name,)
            )
    where = ".".join(path)
    note = f"{where} names the next page, and no parameter is known for it: write down how the API pages"
    return Pages({"type": "single_page"}, note=note)


def _plain_values(body: Any, path: str = "", depth: int = 3) -> dict[str, Any]:
    """Return the texts, numbers and missing values of an answer, by path; not those of its rows."""
    found: dict[str, Any] = {}
    for name, value in body.items() if isinstance(body, dict) and depth else ():
        where = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            found |= _plain_values(value, where, depth - 1)
        elif not isinstance(value, list):
            found[where] = value
    return found


def _unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that has values at these paths."""
    result: dict[str, Any] = {}
    for path, value in values.items():
        *parents, name = path.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return result


def _link(path: str) -> dict[str, Any]:
    return {"type": "json_link", "next_url_path": path}


def _of(parameters: Mapping[str, str], *names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for each in names for name in each if name in parameters)


def _name(names: tuple[str, ...], parameters: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """Return the parameter with one of the names, or the name of a number in the answer."""
    numbers = [name for name in names if type(_last_names(values).get(name)) is int]
    return next(iter((*_of(parameters, names), *numbers)), "")


def _last_names(values: Mapping[str, Any]) -> dict[str, Any]:
    return {path.split(".")[-1]: value for path, value in values.items()}


def _is_total(path: str, value: Any, rows: list[Any]) -> bool:
    return path.rsplit(".", maxsplit=1)[-1] in _TOTAL and type(value) is int and value >= len(rows)


def _endless(far_page: list[Any], limit: str) -> str:
    """Return a note if a page that cannot be there has rows: dlt stops at an empty page."""
    note = f"a page far beyond the end has rows: set {limit}, or a load does not end"
    return note if far_page else ""


def _number(value: Any) -> int:
    return int(value) if str(value or 0).isdecimal() else 0


def _is_next(page: list[Any], rows: list[Any]) -> bool:
    """Return whether a page has rows, and others than the first."""
    return bool(page) and page != rows
