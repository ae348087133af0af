"""The private names of dlt that the engine uses: which they are, and that no other module uses one.

After an upgrade of dlt, this is the first test to read: it names what changed, and where to look.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, get_type_hints

import dlt
import pytest
from dlt.common import validation
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.destination.client import LoadJob, RunnableLoadJob
from dlt.common.normalizers.json.relational import DataItemNormalizer
from dlt.common.schema import typing as schema_typing
from dlt.common.storages.load_package import PackageStorage
from dlt.destinations import job_impl
from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
from dlt.destinations.impl.ducklake.sql_client import DuckLakeSqlClient
from dlt.extract import DltResource, decorators, hints
from dlt.extract.hints import DltResourceHints
from dlt.pipeline import trace

import shared.sources
import shared.warehouse
from shared.warehouse import dlt_internals

MARK = "mark_unstated_dispositions"

PRIVATE_NAMES: list[tuple[type, str, str]] = [
    (RunnableLoadJob, "_job_client", "WarehouseJob.client"),
    (RunnableLoadJob, "_load_id", "WarehouseJob.load_id"),
    (LoadJob, "_file_path", "WarehouseJob.file"),
    (dlt.Pipeline, "_get_load_storage", "package_storage"),
    (DuckDbConnectionPool, "_conn_lock", "borrow_with"),
    (DuckDbConnectionPool, "_conn", "borrow_with"),
    (DuckDbConnectionPool, "_conn_borrows", "borrow_with"),
    (DuckLakeSqlClient, "_attach_statement", "attach_read_only"),
    (DltResource, "_pipe", "docstring"),
    (DltResourceHints, "_hints", "additional_table_hints"),
    (DataItemNormalizer, "_flatten", "FlatteningNormalizer._flatten"),
]
"""An object of dlt, its private name, and what uses it in dlt_internals.py."""


def assert_unchanged(condition: bool, what: str, user: str) -> None:
    assert condition, (
        f"dlt {version('dlt')} changed {what}, see {user} in shared/warehouse/dlt_internals.py"
    )


def names_in(owner: type) -> set[str]:
    """Return the attributes that a class or its methods define."""
    return set(vars(owner)) | set(re.findall(r"\bself\.(\w+)\b[^=\n]*=", inspect.getsource(owner)))


@pytest.mark.parametrize(
    ("owner", "name", "user"),
    PRIVATE_NAMES,
    ids=[f"{owner.__name__}.{name}" for owner, name, _ in PRIVATE_NAMES],
)
def test_dlt_has_each_private_name(owner: type, name: str, user: str) -> None:
    assert_unchanged(name in names_in(owner), f"{owner.__name__}.{name}", user)
    assert f"def {user.rpartition('.')[2]}(" in inspect.getsource(dlt_internals)


def test_the_table_lists_every_private_name_that_dlt_internals_uses() -> None:
    tree = ast.parse(inspect.getsource(dlt_internals))
    used = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _private(node)
    }
    job = next(node for node in tree.body if getattr(node, "name", "") == "WarehouseJob")
    used |= {
        node.attr
        for node in ast.walk(job)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
    }
    assert used == {name for _, name, _ in PRIVATE_NAMES}


def test_dlt_has_the_key_for_the_rows_that_a_merge_deletes() -> None:
    hints = schema_typing.MERGE_DISPOSITION_HINTS
    assert_unchanged("destination_scope" in hints, "the hints of a merge", "DESTINATION_SCOPE_KEY")
    scope = "day = 'mon'"
    resource = dlt.resource(
        [{"day": "mon"}],
        name="items",
        write_disposition={
            "disposition": "merge",
            "strategy": "delete-insert",
            "destination_scope": scope,
        },
    )
    table: Any = resource.compute_table_schema()
    assert_unchanged(
        table.get(dlt_internals.DESTINATION_SCOPE_KEY) == scope,
        "where it stores the destination scope",
        "DESTINATION_SCOPE_KEY",
    )


def test_dlt_still_writes_the_files_of_follow_up_jobs_to_the_temporary_directory() -> None:
    source = inspect.getsource(job_impl.FollowupJobRequestImpl)
    assert_unchanged("gettempdir" in source, "where follow-up jobs are written", "FollowupFile")


def test_dlt_still_writes_its_default_disposition_into_the_hints_of_a_resource() -> None:
    name = "DEFAULT_WRITE_DISPOSITION"
    for module in (decorators, hints):
        assert_unchanged(name in inspect.getsource(module), f"{name} of {module.__name__}", MARK)
    unstated = dlt.resource([1], name="items")
    assert_unchanged(unstated.write_disposition == "append", "its default", MARK)
    assert not dlt_internals.states_disposition(unstated)
    assert dlt_internals.states_disposition(
        dlt.resource([1], name="items", write_disposition="append")
    )


def test_dlt_still_evaluates_the_annotations_of_a_typed_dictionary_at_each_comparison() -> None:
    source = inspect.getsource(validation.validate_dict)
    assert_unchanged("get_type_hints(" in source, "validate_dict", "cache_type_hints")
    module: Any = validation
    hints = module.get_type_hints(schema_typing.TTableSchema)
    assert hints is module.get_type_hints(schema_typing.TTableSchema)
    assert hints == get_type_hints(schema_typing.TTableSchema)


def test_dlt_has_the_other_names_whose_meaning_the_engine_relies_on() -> None:
    assert_unchanged(trace.TRACE_FILE_NAME == "trace.pickle", "TRACE_FILE_NAME", "delete_traces")
    for name in ("load_schema", "save_schema"):
        assert_unchanged(hasattr(PackageStorage, name), f"PackageStorage.{name}", "package_storage")
    text = inspect.getsource(ConfigFieldMissingException.__str__)
    assert_unchanged("traces" in text, "the text of a missing setting", "resolve_configuration")


MODULES = sorted(
    module.name
    for package in (shared.sources, shared.warehouse)
    for module in walk_packages(package.__path__, f"{package.__name__}.")
    if module.name != dlt_internals.__name__
)


def _private(node: ast.Attribute) -> bool:
    """Return whether an attribute is private, and of another object than the class's own."""
    is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    return node.attr.startswith("_") and not node.attr.startswith("__") and not is_own


def _private_uses(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _private(node):
            yield f"line {node.lineno}: .{node.attr}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlt"):
            yield from (
                f"line {node.lineno}: {alias.name}"
                for alias in node.names
                if alias.name.startswith("_")
            )


@pytest.mark.parametrize("name", MODULES)
def test_no_other_module_uses_a_private_name(name: str) -> None:
    module = import_module(name)
    uses = list(_private_uses(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))))
    assert uses == [], f"{name} uses private names; wrap them in dlt_internals.py"


@pytest.mark.parametrize("name", MODULES)
def test_no_class_overrides_or_reads_a_private_name_of_a_dlt_class(name: str) -> None:
    """A private name of a subclass that dlt has as well would replace dlt's own silently."""
    module = import_module(name)
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        owner = getattr(module, node.name)
        names_of_dlt = {
            private
            for base in owner.__mro__
            if base.__module__.startswith("dlt.")
            for private in names_in(base)
            if private.startswith("_") and not private.startswith("__")
            # dlt has its vault's subclasses define these
            if private not in getattr(base, "__abstractmethods__", ())
        }
        used = set(re.findall(r"\b(?:self|cls|super\(\))\.(_\w+)", inspect.getsource(owner)))
        defined = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        assert not (used | defined) & names_of_dlt, owner
