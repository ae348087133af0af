"""`etl contract`: compare what the locations define with the contracts in the repository."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from shared import settings
from shared.cli.contract_changes import ContractChange, compare
from shared.cli.inventories import Inventory, Workspace, read_inventories
from shared.cli.locations import WorkspaceError, code_locations, interpreters
from shared.cli.terminal import AsJson, console, fail, print_json

FILE = "contract.json"
"""The name of the file in each project."""


def contract(
    locations: Annotated[
        list[str] | None, typer.Argument(metavar="[LOCATION]...", help="Such as orders_etl.")
    ] = None,
    *,
    update: Annotated[
        bool, typer.Option("--update", help="Write the files, because the change is intended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the assets, columns, checks, jobs, schedules and sensors with the contracts.

    The contract of a location is the file contract.json of its project. The exit code is 1 if it differs
    from the code. A difference is BREAKING if it removes or changes what another asset depends on, in any
    location, or removes a job.
    """
    try:
        modules = code_locations()
        workspace = Workspace(settings.workspace_root(), modules, interpreters())
    except WorkspaceError as error:
        fail(str(error))
    for name in locations or ():
        if name not in modules:
            fail(f"No code location {name!r}; workspace.yaml has {', '.join(modules)}.", 2)
    inventories = read_inventories(workspace, locations or modules)
    broken = [item for item in inventories.values() if item.error or item.project is None]
    if broken:
        reason = broken[0].error or "it is installed without its project's folder"
        fail(f"{broken[0].location}: {reason}. Nothing was compared or written.")
    stored = stored_contracts(workspace.root)
    current = {name: item.contract for name, item in inventories.items()}
    others = {name: stored[name] for name in stored if name in modules and name not in current}
    changes = compare(stored, {**others, **current})
    if update:
        _write(workspace.root, inventories, stored.keys() - modules.keys())
    if as_json:
        print_json([asdict(change) for change in changes])
    else:
        _print(changes, update)
    if changes and not update:
        raise typer.Exit(1)


def stored_contracts(root: Path) -> dict[str, Any]:
    """Return the contracts in the projects' files, by location.

    Raises:
        Exit: a file is not valid.
    """
    contracts: dict[str, Any] = {}
    for file in sorted(root.glob(f"projects/*/{FILE}")):
        try:
            contracts[file.parent.name] = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            path = file.relative_to(root)
            fail(
                f"{path} is not JSON ({error}): restore it, or write it with etl contract --update."
            )
    return contracts


def listed_assets(root: Path) -> dict[str, set[str]]:
    """Return the assets in the projects' files, by location; one without a valid file is left out."""
    listed: dict[str, set[str]] = {}
    for file in root.glob(f"projects/*/{FILE}"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            document = json.loads(file.read_text())
            listed[document["location"]] = set(document["assets"])
    return listed


def text_of(location: str, contract: Mapping[str, Any]) -> str:
    """Return the content of a contract's file: sorted, one entry a line, so that diffs are small."""
    document = {"location": location, **contract}
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _write(root: Path, inventories: Mapping[str, Inventory], removed: set[str]) -> None:
    """Write the files of some locations, and remove those of locations that are gone."""
    for item in inventories.values():
        if item.project:
            (item.project / FILE).write_text(text_of(item.location, item.contract))
    for file in root.glob(f"projects/*/{FILE}"):
        if json.loads(file.read_text())["location"] in removed:
            file.unlink()


def _print(changes: Sequence[ContractChange], update: bool) -> None:
    """Print the differences, and the next step."""
    lines = [str(change) for change in changes]
    if not changes:
        lines.append("The contracts are equal to the code.")
    elif update:
        lines.append("The contracts are updated. Commit the files contract.json.")
    else:
        lines.append(
            "The contracts differ from the code. If the changes are intended, run "
            "uv run etl contract --update, and commit the files contract.json."
        )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
