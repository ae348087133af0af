"""`etl preview`: load what a branch changes into an environment of its own, and compare."""

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from shared import environments, settings
from shared.cli.code_parts import parts_of_assets, source_folders
from shared.cli.contract_changes import ContractChange, compare
from shared.cli.git_copy import copy_of, current_branch, merge_base
from shared.cli.instance_home import dagster_home, only_user
from shared.cli.inventories import Inventory, Workspace, read_inventories
from shared.cli.locations import WorkspaceError, code_locations, interpreters
from shared.cli.preview_report import PreviewReport
from shared.cli.preview_tables import StoredTable, readable_tables, stored_tables
from shared.cli.reports import AssetResult, RunSelection
from shared.cli.run import run_locations
from shared.cli.terminal import (
    AsJson,
    console,
    fail,
    notes,
    print_json,
    print_note,
    user_path,
    warehouse_errors,
)
from shared.cli.touched import TouchedAsset, depending_on, find_touched


def preview(
    context: typer.Context,
    *,
    base: Annotated[
        str, typer.Option(metavar="BRANCH", help="The branch that the work goes into.")
    ] = "main",
    output: Annotated[
        str, typer.Option(metavar="FILE", help="The Markdown file of the summary.")
    ] = "preview.md",
    as_json: AsJson = False,
) -> None:
    """Load what a branch changes into an environment of its own, and compare it with production.

    Touched are assets that are new, or whose code, columns or checks differ from the base. They, and all
    that depends on them, are loaded with the partitions that the environment names, and their checks run.

    The environment is ETL_ENVIRONMENT, or is named like the branch. `etl env drop` removes its tables. The
    exit code is 1 if a load, or a check with the severity ERROR, failed.
    """
    root = settings.workspace_root()
    environment = _environment(root, base)
    commit = merge_base(root, base)
    home = dagster_home(environment)
    os.environ["ETL_ENVIRONMENT"] = environment.name
    os.environ["DAGSTER_HOME"] = str(home)  # partitions and history of its own
    with only_user(environment):
        before, after, touched, remarks = _compare(root, base, commit, environment)
        results = _load(touched, after, home, as_json)
        known = {item.key for item in touched}
        touched += [  # a check of the file that an asset loads runs with it
            TouchedAsset(key, result.location, "upstream")
            for key, result in results.items()
            if key not in known and result.asset
        ]
        compared_with = environments.named(environment.defer_to or environments.PRODUCTION)
        stored = _stored(touched, compared_with, environment)
    report = PreviewReport(
        base=base,
        commit=commit,
        environment=environment.name,
        before_name=compared_with.name,
        partitions=_partitions(environment),
        touched=touched,
        results=results,
        before=stored[0],
        after=stored[1],
        contract=_contract_changes(before, after),
        declared={
            key: asset["columns"]
            for item in after.values()
            for key, asset in item.contract["assets"].items()
        },
        notes=remarks,
    )
    _publish(report, user_path(context, output), as_json)
    if report.has_failed:
        raise typer.Exit(1)


def _environment(root: Path, base: str) -> environments.Environment:
    """Return the environment to load: that of `ETL_ENVIRONMENT`, or else one named like the branch."""
    name = settings.get("ETL_ENVIRONMENT")
    if name == environments.LOCAL:
        name = current_branch(root)
        if name == base:
            fail(f"The branch is {base}: check out the branch to preview.", 2)
    if not name:
        fail("No branch is checked out: name the environment with ETL_ENVIRONMENT=pr-123.", 2)
    try:
        environment = environments.named(name)
    except (environments.EnvironmentNameError, environments.EnvironmentFileError) as error:
        fail(
            f"{error} A preview has the name of its branch, or that of ETL_ENVIRONMENT; check out the "
            "branch to preview.",
            2,
        )
    if environment.is_production or not environment.has_own_file:
        fail(
            f"A preview does not load {environment.name}: check out the branch, or set "
            "ETL_ENVIRONMENT=pr-123.",
            2,
        )
    return environment


def _compare(
    root: Path, base: str, commit: str, environment: environments.Environment
) -> tuple[dict[str, Inventory], dict[str, Inventory], list[TouchedAsset], list[str]]:
    """Return the inventories before and after the change, the touched assets, and remarks."""
    try:
        pythons = {name: str(root / python) for name, python in interpreters().items()}
        head = Workspace(root, code_locations(), pythons)
        with copy_of(root, commit) as folder:
            old = Workspace(folder, code_locations(folder), pythons, source_folders(folder))
            with notes.status(f"Reading the definitions before and after {base} …"):
                after = read_inventories(head, head.modules)
                _require_loaded(after)
                before = read_inventories(old, old.modules)
            parts_before = parts_of_assets(folder, before.values())
    except WorkspaceError as error:
        fail(f"{error} Nothing was loaded.")
    broken = [item for item in before.values() if item.error]
    touched = find_touched(
        parts_before,
        parts_of_assets(root, after.values()),
        after,
        unknown={item.location for item in broken},
        readable=partial(_readable, environment=environment),
    )
    remarks = [
        f"{item.location} does not load at {base}, so all of its assets count as changed: {item.error}"
        for item in broken
    ]
    return before, after, touched, remarks


def _require_loaded(inventories: Mapping[str, Inventory]) -> None:
    for item in inventories.values():
        if item.error:
            fail(f"{item.location} does not load: {item.error}. Nothing was loaded.")


def _readable(keys: Collection[str], environment: environments.Environment) -> set[str]:
    """Return the assets whose tables a preview can read without a load."""
    from shared import warehouse

    with warehouse_errors():
        try:
            return readable_tables(keys, environment) if keys else set()
        except warehouse.QueryError:  # a folder or a bucket has no list of its tables
            return set()


def _load(
    touched: Sequence[TouchedAsset], inventories: Mapping[str, Inventory], home: Path, as_json: bool
) -> dict[str, AssetResult]:
    """Load assets in the order of their stages, and return the result of each, by its key.

    What depends on an asset of another location that failed is not loaded.
    """
    modules = code_locations()
    results: dict[str, AssetResult] = {}
    for stage in sorted({item.stage for item in touched if item.change != "removed"}):
        blocked = {
            blocked: result.asset
            for result in results.values()
            if result.status == "failed"
            for blocked in depending_on([result.asset], inventories)
        }
        selected: dict[str, list[str]] = {}
        for item in touched:
            if item.change == "removed" or item.stage != stage:
                continue
            if item.key in blocked:
                error = f"not run, because {blocked[item.key]} failed"
                results[item.key] = AssetResult(item.location, item.key, "skipped", error=error)
            else:
                selected.setdefault(item.location, []).append(item.key)
        selections = {
            location: RunSelection(tuple(keys), logs=home / "logs")
            for location, keys in selected.items()
        }
        for result in run_locations(modules, selections, as_json) if selections else ():
            results[result.asset or result.location] = result
    return results


def _stored(
    touched: Sequence[TouchedAsset],
    compared_with: environments.Environment,
    environment: environments.Environment,
) -> tuple[Mapping[str, StoredTable], Mapping[str, StoredTable]]:
    """Return the tables of the touched assets before and after."""
    if not touched:
        return {}, {}
    from shared import warehouse

    keys = [item.key for item in touched]
    with warehouse_errors():
        try:
            return stored_tables(keys, compared_with), stored_tables(keys, environment)
        except warehouse.QueryError as error:  # a folder or a bucket has no list of its tables
            print_note(f"The rows before and after are not counted: {error}")
            return {}, {}


def _contract_changes(
    before: Mapping[str, Inventory], after: Mapping[str, Inventory]
) -> list[ContractChange]:
    """Return how the contracts differ, without the locations whose base does not load."""
    known = {name: item.contract for name, item in before.items() if not item.error}
    broken = before.keys() - known.keys()
    unknown = {name: after[name].contract for name in broken if name in after}
    return compare(known | unknown, {name: item.contract for name, item in after.items()})


def _partitions(environment: environments.Environment) -> str:
    latest = environment.partitions
    return "those of the sample" if latest == "sample" else f"the latest {latest}"


def _publish(report: PreviewReport, file: Path, as_json: bool) -> None:
    """Write the summary to its file and to the summary of a GitHub job, and print it."""
    text = report.markdown()
    file.write_text(text)
    if job_summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(job_summary).open("a") as summary:
            summary.write(text)
    if as_json:
        print_json(report.document())
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print(f"The summary is in {file}.", style="dim", highlight=False, soft_wrap=True)
