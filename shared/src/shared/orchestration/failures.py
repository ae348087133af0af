"""What a person reads of a load that failed: what went wrong and where, not a stack of libraries."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import dlt

from shared import settings
from shared.redaction import redact

_LIBRARIES = {Path(module.__file__).parents[1] for module in (traceback, dlt) if module.__file__}
_SHOWN = 4  # lines of the workspace's own code


@contextmanager
def as_dagster_failure(but: tuple[type[Exception], ...] | type[Exception] = ()) -> Iterator[None]:
    """Turns whatever is raised inside into a failure that Dagster shows in its own words first.

    The whole stack goes to the run's log, at the level DEBUG. Secrets go nowhere.

    Args:
        but: what is raised as it is.

    Raises:
        Failure: with the error's text, and the lines of the workspace's own code it came through.
    """
    try:
        yield
    except dg.RetryRequested:
        raise
    except Exception as error:
        if isinstance(error, but):
            raise
        cause = unwrapped(error)
        if isinstance(cause, dg.RetryRequested):
            raise cause from None
        if isinstance(cause, dg.Failure):  # a source's own words
            raise dg.Failure(
                redact(cause.description or ""),
                metadata=cause.metadata,
                allow_retries=cause.allow_retries,
            ) from None
        dg.get_dagster_logger().debug(redact("".join(traceback.format_exception(error))))
        text = redact(f"{type(cause).__name__}: {cause}")
        raise dg.Failure(text, metadata={"traceback": "\n".join(_lines(cause))}) from None


def unwrapped(error: BaseException) -> BaseException:
    """Returns what dlt wraps into errors of its own, one for each step it passed."""
    while type(error).__module__.startswith("dlt.") and error.__cause__ is not None:
        error = error.__cause__
    return error


def _lines(error: BaseException) -> list[str]:
    root = settings.workspace_root()
    frames = [
        f"{path.relative_to(root) if path.is_relative_to(root) else path}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not any((path := Path(frame.filename)).is_relative_to(each) for each in _LIBRARIES)
    ]
    return frames[-_SHOWN:]
