"""Which assets a change touches: what is new, changed or removed, and what depends on it."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from shared.cli.inventories import Inventory

_MAX_REASONS = 3

Change = Literal["new", "changed", "removed", "downstream", "upstream"]


@dataclass(frozen=True)
class TouchedAsset:
    """An asset that a change touches.

    Attributes:
        key: its key.
        location: the code location that has it.
        change: why it is here. `upstream` is an asset that a touched one reads, and that has no table.
        reasons: the modules and files that differ.
        stage: assets of one location and stage run together; a stage needs those before it.
    """

    key: str
    location: str
    change: Change
    reasons: tuple[str, ...] = ()
    stage: int = 0

    @property
    def description(self) -> str:
        """The change with its first reasons, in one line."""
        shown = [*self.reasons[:_MAX_REASONS]]
        if hidden := len(self.reasons) - len(shown):
            shown.append(f"{hidden} more")
        return f"{self.change}: {', '.join(shown)}" if shown else self.change


def find_touched(
    base: Mapping[str, Mapping[str, str]],
    head: Mapping[str, Mapping[str, str]],
    inventories: Mapping[str, Inventory],
    *,
    unknown: Collection[str] = (),
    readable: Callable[[Collection[str]], Collection[str]] = lambda keys: keys,
) -> list[TouchedAsset]:
    """Return the assets that differ between two copies of the code, in the order in which they load.

    Args:
        base: the parts of each asset's code before the change, see `code_parts`.
        head: the same, after it.
        inventories: what the locations define after the change.
        unknown: the locations whose base is not known, so all of their assets count as changed.
        readable: returns those of some assets whose tables the environment can read already; the others
            are loaded if a touched asset reads them.
    """
    locations = {key: name for name, item in inventories.items() for key in item.code}
    parents = _parents(inventories)
    changes: dict[str, tuple[Change, tuple[str, ...]]] = {}
    for key, location in locations.items():
        if location in unknown:
            changes[key] = "changed", ("the base of its location does not load",)
        elif key not in base:
            changes[key] = "new", ()
        elif reasons := _differences(base[key], head[key]):
            changes[key] = "changed", reasons
    for key in _closure(changes, _reversed(parents)) - changes.keys():
        changes[key] = "downstream", ()
    existing = readable(_closure(changes, parents) - changes.keys())
    needed = {
        key: [name for name in names if name not in existing] for key, names in parents.items()
    }
    for key in _closure(changes, needed) - changes.keys():
        changes[key] = "upstream", ()
    stages = _stages(parents, locations)
    loaded = [
        TouchedAsset(key, locations[key], change, reasons, stages[key])
        for key, (change, reasons) in changes.items()
    ]
    removed = [TouchedAsset(key, "", "removed") for key in sorted(base.keys() - head.keys())]
    return sorted(loaded, key=lambda item: (item.stage, item.location, item.key)) + removed


def depending_on(keys: Iterable[str], inventories: Mapping[str, Inventory]) -> set[str]:
    """Return assets with all that depends on them, in any location."""
    return _closure(keys, _reversed(_parents(inventories)))


def _parents(inventories: Mapping[str, Inventory]) -> dict[str, list[str]]:
    """Return what each asset depends on, as far as a location has it."""
    known = {key for item in inventories.values() for key in item.code}
    return {
        key: [parent for parent in asset["depends_on"] if parent in known]
        for item in inventories.values()
        for key, asset in item.contract["assets"].items()
    }


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(part for part in old.keys() | new.keys() if old.get(part) != new.get(part)))


def _reversed(parents: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {}
    for key, names in parents.items():
        for parent in names:
            children.setdefault(parent, []).append(key)
    return children


def _closure(keys: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    """Return keys with all that can be reached from them."""
    reached: set[str] = set()
    waiting = [*keys]
    while waiting:
        key = waiting.pop()
        if key not in reached:
            reached.add(key)
            waiting += edges.get(key, ())
    return reached


def _stages(parents: Mapping[str, Iterable[str]], locations: Mapping[str, str]) -> dict[str, int]:
    """Return the stage of each asset: one more than a parent's in another location."""
    stages: dict[str, int] = {}

    def stage(key: str) -> int:
        if key not in stages:
            stages[key] = 0  # a circle across locations has no order
            stages[key] = max(
                (stage(parent) + (locations[parent] != locations[key]) for parent in parents[key]),
                default=0,
            )
        return stages[key]

    for key in parents:
        stage(key)
    return stages
