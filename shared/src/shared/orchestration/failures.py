"""Short messages for failed loads: what went wrong and where, without the frames of libraries."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import dlt
from dlt.common.configuration.exceptions import ConfigurationException

from shared import settings
from shared.redaction import redact
from shared.sources.error_secrets import error_secrets
from shared.warehouse.errors import WarehouseError, find_cause

RETRY_ON_FAILURE = "dagster/retry_on_asset_or_op_failure"
"""Dagster's run tag: `false` keeps it from retrying a run in which a step failed."""

_LIBRARIES = {Path(module.__file__).parents[1] for module in (traceback, dlt) if module.__file__}
_MAX_LINES = 4  # of the workspace's own code


@contextmanager
def as_dagster_failure(passthrough: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Convert what is raised inside to a `Failure`, whose message Dagster shows first.

    The full traceback goes to the run's log, at the level DEBUG. Secrets are redacted. After a permanent
    failure, which a retry cannot fix, Dagster retries neither the step nor the run.

    Args:
        passthrough: the errors that are raised unchanged.

    Raises:
        Failure: with the error's text, and the last lines of the workspace's code in its traceback.
    """
    try:
        yield
    except dg.RetryRequested:
        raise
    except Exception as error:
        if isinstance(error, passthrough):
            raise
        secrets, cause = error_secrets(error), unwrap_cause(error)
        if isinstance(cause, dg.RetryRequested):
            raise cause from None
        allow_retries = not _is_permanent(error)
        if not allow_retries:
            _stop_run_retries()
        if isinstance(cause, dg.Failure):  # the source's own message
            raise dg.Failure(
                redact(cause.description or "", secrets),
                metadata={
                    name: redact(value.text or "", secrets)
                    if isinstance(value, dg.TextMetadataValue)
                    else value
                    for name, value in cause.metadata.items()
                },
                allow_retries=allow_retries,
            ) from None
        dg.get_dagster_logger().debug(redact("".join(traceback.format_exception(error)), secrets))
        text = redact(f"{type(cause).__name__}: {cause}", secrets)
        raise dg.Failure(
            text, metadata={"traceback": "\n".join(_lines(cause))}, allow_retries=allow_retries
        ) from None


def _is_permanent(error: BaseException) -> bool:
    """Return whether a retry fails with the same error: see `WarehouseError.permanent`."""
    if failure := find_cause(error, dg.Failure):
        return not failure.allow_retries
    if known := find_cause(error, WarehouseError):
        return known.permanent
    return find_cause(error, ConfigurationException) is not None


def _stop_run_retries() -> None:
    """Make Dagster not retry the current run, if its step fails.

    `Failure(allow_retries=False)` stops the retries of the step only.
    """
    with suppress(dg.DagsterInvariantViolationError):  # no step is running
        context = dg.OpExecutionContext.get()
        context.instance.add_run_tags(context.run_id, {RETRY_ON_FAILURE: "false"})


def describe_error(error: BaseException) -> str:
    """Return the type, the message and the last line of code of an error, without secrets."""
    cause = unwrap_cause(error)
    where = "".join(f" ({line})" for line in _lines(cause)[-1:])
    return redact(f"{type(cause).__name__}: {cause}{where}", error_secrets(error))


def unwrap_cause(error: BaseException) -> BaseException:
    """Return the error that dlt wraps into its own errors, one for each step."""
    while type(error).__module__.startswith("dlt.") and error.__cause__ is not None:
        error = error.__cause__
    return error


def _lines(error: BaseException) -> list[str]:
    root = settings.workspace_root()
    frames = [
        f"{path.relative_to(root) if path.is_relative_to(root) else path}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not any((path := Path(frame.filename)).is_relative_to(folder) for folder in _LIBRARIES)
    ]
    return frames[-_MAX_LINES:]
