"""Secrets that a failing source got by other ways than dlt's settings: in the variables of its code."""

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from types import FrameType
from typing import Any

from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.configuration.specs.base_configuration import is_secret_hint

from shared.redaction import is_secret_name
from shared.sources.dlt_settings import texts

_NO_SECRET_KEY = re.compile(
    r"(?i)(?!.*(api|access|secret|private|auth|account|subscription|consumer|sign|encrypt|shared))"
    r"[a-z_.-]*keys?"
)
"""In code, a key is more often a dict's or a table's than a secret."""

_MAX_DEPTH = 4
_MAX_ITEMS = 50  # of a container
_MAX_VALUES = 20_000  # of all
_NOT_ENTERED = ("dagster", "dlt.common", "dlt.extract", "dlt.pipeline", "duckdb", "pyarrow")
"""Packages whose objects are large and hold no secret that dlt has not read; configurations are."""


def error_secrets(error: BaseException) -> set[str]:
    """Return the secrets in the variables of the frames that an error and its causes passed.

    They are the fields of dlt's configurations that are secrets by their type, such as the `token` of a
    rest_api source's `auth`, and texts in variables, parameters, headers and attributes with a secret's
    name, such as `api_key`.
    """
    found: set[str] = set()
    values = islice(_values(error), _MAX_VALUES)
    for name, value in values:
        with suppress(Exception):  # an object may raise when it is read; the error itself matters
            found.update(_secrets_in(name, value))
    return found


def _secrets_in(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, BaseConfiguration):
        hints = value.get_resolvable_fields()
        secrets = [
            key for key, hint in hints.items() if is_secret_hint(hint) and not _is_settings(hint)
        ]
        yield from (text for key in secrets for text in texts(getattr(value, key, None)))
    elif is_secret_name(name) and not _NO_SECRET_KEY.fullmatch(name):
        # An Authorization header has a scheme before the secret.
        yield from (form for text in texts(value) for form in (text, text.rpartition(" ")[2]))


def _is_settings(hint: Any) -> bool:
    """Return whether a field has more fields, such as credentials: only some of them are secrets."""
    return isinstance(hint, type) and issubclass(hint, BaseConfiguration)


def _values(error: BaseException) -> Iterator[tuple[str, Any]]:
    """Yield names and values: the variables of all frames, and what is in them."""
    seen: set[int] = set()
    for frame in _frames(error, seen):
        for name, value in frame.f_locals.items():
            yield from _inside(name, value, seen, _MAX_DEPTH)
        if "site-packages" not in frame.f_code.co_filename:  # constants of a team's module
            yield from ((name, value) for name, value in frame.f_globals.items() if name.isupper())


def _frames(error: BaseException | None, seen: set[int]) -> Iterator[FrameType]:
    """Yield the frames of an error, of its causes and of the members of groups."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield from (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from _frames(other, seen)


def _inside(name: str, value: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """Yield a value and, down to some depth, the items and attributes in it; an object only once."""
    yield name, value
    if depth == 0 or isinstance(value, (str, bytes, int, float, type)) or id(value) in seen:
        return
    seen.add(id(value))
    inside: list[tuple[Any, Any]] = []
    with suppress(Exception):  # an object of another library may refuse to be iterated
        inside = list(islice(_items(name, value), _MAX_ITEMS))
    for key, item in inside:
        yield from _inside(str(key), item, seen, depth - 1)


def _items(name: str, value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, tuple) and hasattr(value, "__match_args__"):  # such as SQLAlchemy's URL
        return zip(value.__match_args__, value, strict=True)
    if isinstance(value, (list, tuple, set)):
        return ((name, item) for item in value)
    is_large = type(value).__module__.startswith(_NOT_ENTERED)
    return () if is_large else list(getattr(value, "__dict__", {}).items())
