# ruff: noqa: SLF001
"""The only module of the sources and the engine that uses private names of dlt.

Each docstring says why nothing public does the same. `shared/tests/test_dlt_internals.py` lists the names
and fails when an upgrade of dlt changes one.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, wraps
from inspect import cleandoc, isfunction, isgenerator
from pathlib import Path
from typing import Any, cast

import dlt
from dlt.common import validation
from dlt.common.destination.client import FollowupJobRequest, RunnableLoadJob
from dlt.common.normalizers.json.relational import DataItemNormalizer
from dlt.common.storages.load_package import PackageStorage
from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
from dlt.extract import DltResource, DltSource, decorators, hints
from dlt.pipeline.trace import TRACE_FILE_NAME

from shared.lazy_modules import duckdb

DESTINATION_SCOPE_KEY = "x-merge-destination-scope"
"""The key of a prepared table for the condition of the rows that a merge deletes.

The public `destination_scope` of a write disposition is stored in the schema. There it outlives its
partition (a later load would delete it again), and each partition adds a version of the schema.
"""

_NO_CONNECTION = cast("duckdb.DuckDBPyConnection", None)  # dlt types it as never missing


class UnstatedDisposition(str):
    """dlt's default write disposition, where a resource states none."""

    __slots__ = ()


def mark_unstated_dispositions() -> None:
    """Make resources that are created from now on remember that they state no write disposition.

    dlt puts its default, `append`, into the hints of each resource, and nothing distinguishes it from an
    `append` that the resource states.
    """
    for module in (decorators, hints):
        module.DEFAULT_WRITE_DISPOSITION = UnstatedDisposition(module.DEFAULT_WRITE_DISPOSITION)  # type: ignore[attr-defined]


def cache_type_hints() -> None:
    """Make dlt evaluate the annotations of each typed dictionary once.

    dlt compares each schema that it reads with typed dictionaries, about 300 of them in a load, and
    evaluates their annotations each time: a tenth of a small load. It has no setting for it, and the name
    is a TODO in its `validate_dict`.
    """
    module: Any = validation
    evaluate = module.get_type_hints

    @cache
    def evaluated(spec: type) -> dict[str, Any]:
        hints: dict[str, Any] = evaluate(spec, globalns=vars(sys.modules[spec.__module__]))
        return hints

    def get_type_hints(spec: type, globalns: object = None) -> dict[str, Any]:
        del globalns  # dlt's own, of the module of the dictionary
        return evaluated(spec)

    module.get_type_hints = get_type_hints


def states_disposition(resource: DltResource) -> bool:
    """Return whether a resource states its write disposition, as far as that is known.

    One that was created before the mark was set, or by dlt's `sql_table`, counts as stating it.
    """
    return not isinstance(resource.write_disposition, UnstatedDisposition)


def docstring(resource: DltResource) -> str:
    """Return the docstring of a resource's function; empty if it has neither. dlt does not keep it."""
    function = resource._pipe.gen
    return cleandoc(function.__doc__ or "") if isfunction(function) else ""


def wrap_items(
    source: DltSource, resource: DltResource, wrap: Callable[[Any], Iterator[Any]]
) -> None:
    """Make a resource yield what `wrap` makes of its items, if nothing else takes them one by one.

    That are the steps of the resource, and transformers. No public step of dlt sees the last item.
    """
    pipe: Any = resource._pipe
    function = pipe.gen
    parents = [other._pipe.parent for other in source.resources.values()]
    if len(pipe) > 1 or pipe.has_parent or pipe in parents or not callable(function):
        return

    @wraps(function)
    def wrapped() -> Any:
        items = function()
        return wrap(items) if isgenerator(items) else items

    pipe.replace_gen(wrapped)


def additional_table_hints(resource: DltResource) -> Mapping[str, Any]:
    """Return the table hints of a resource that are not dlt's own.

    The public way is its table's schema, which a resource with a dynamic table name does not have.
    """
    return (resource._hints or {}).get("additional_table_hints") or {}


class WarehouseJob(RunnableLoadJob):
    """A load job with public names for what dlt's loader sets before it calls `run`."""

    @property
    def file(self) -> str:
        """The job's file, which the loader moves before it calls `run`."""
        return self._file_path

    @property
    def client(self) -> Any:
        """The client of the destination."""
        return self._job_client

    @property
    def load_id(self) -> str:
        """The id of the load."""
        return self._load_id


class FollowupFile(FollowupJobRequest):
    """A follow-up job whose file is in the working directory of its load.

    dlt writes such files to the system's temporary directory, and its loader moves those that it gets.
    A process that is killed in between leaves one; all that the loader does not get stay.
    """

    def __init__(self, file: Path, text: str) -> None:
        self._file = file
        file.write_text(text, encoding="utf-8")

    def new_file_path(self) -> str:
        """Return the file, which the loader moves into the load package."""
        return str(self._file)


def as_one_followup_job(
    jobs: Sequence[FollowupJobRequest], directory: Path
) -> list[FollowupJobRequest]:
    """Return one job, and so one transaction, with the SQL of all jobs; remove their files."""
    files = [Path(job.new_file_path()) for job in jobs]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for file in files:
        file.unlink()
    return [FollowupFile(directory / files[0].name, text)] if files else []


def package_storage(pipeline: dlt.Pipeline) -> PackageStorage:
    """Return the storage of load packages. dlt has no public way to write the schema of a package."""
    return pipeline._get_load_storage().normalized_packages


def delete_traces(pipelines_dir: str) -> None:
    """Delete what dlt recorded of a run: exception texts, which can contain secrets.

    dlt has no setting for it.
    """
    for trace in Path(pipelines_dir).rglob(TRACE_FILE_NAME):
        trace.unlink()


def borrow_with(
    pool: DuckDbConnectionPool,
    idle: "list[duckdb.DuckDBPyConnection]",
    borrow: "Callable[[], duckdb.DuckDBPyConnection]",
) -> "duckdb.DuckDBPyConnection":
    """Make a pool configure an idle connection, if there is one, instead of opening another.

    dlt's pool for DuckLake opens a connection each time, and has no setting to keep one.
    """
    with pool._conn_lock:
        pool._conn = idle.pop() if idle else _NO_CONNECTION
        pool._conn_borrows = 0  # it configures the first connection that is borrowed
        try:
            return borrow()
        finally:
            pool._conn = _NO_CONNECTION


def attach_read_only(sql_client: Any) -> None:
    """Make a client of a DuckLake create no lake and change none. dlt has no setting for it."""
    statement = sql_client.attach_statement.removesuffix(")")
    sql_client._attach_statement = f"{statement}, READ_ONLY)"


class FlatteningNormalizer(DataItemNormalizer):
    """dlt's relational normalizer, which lets a subclass see a row before two of its names are one.

    dlt yields rows after it has written both values into one column, and the last one wins.
    """

    def reject_collisions(self, table: str, row: Mapping[str, Any], level: int) -> None:
        """Raise if two names of a row are one column. It is called if that is possible."""
        raise NotImplementedError

    def _flatten(self, table: str, dict_row: Any, _r_lvl: int) -> Any:
        flattened, lists = super()._flatten(table, dict_row, _r_lvl)
        if len(flattened) + len(lists) != _leaves(dict_row):  # also if a dictionary stays JSON
            self.reject_collisions(table, dict_row, _r_lvl)
        return flattened, lists


def _leaves(row: Mapping[str, Any]) -> int:
    values = row.values()
    if dict not in map(type, values):  # as most rows
        return len(row)
    return sum(_leaves(value) if type(value) is dict else 1 for value in values)
