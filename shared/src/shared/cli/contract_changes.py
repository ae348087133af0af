"""How two contracts differ, and which of the differences break an asset that depends on them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Contracts = Mapping[str, Mapping[str, Any]]
"""The contract of each location, by the location's name; see `location_inventory.contract`."""


@dataclass(frozen=True, order=True)
class ContractChange:
    """One difference.

    Attributes:
        location: the location that has it.
        subject: the asset, or the kind of the job, the schedule or the sensor.
        kind: whether something is added, removed or changed.
        text: what differs, such as `column spend: decimal(18,4) -> text`.
        readers: the assets that depend on what is removed or changed.
        breaking: whether others depend on it.
    """

    location: str
    subject: str
    kind: Literal["added", "removed", "changed"]
    text: str
    readers: tuple[str, ...] = ()
    breaking: bool = False

    def __str__(self) -> str:
        """Return the line that a person reads."""
        label = "BREAKING" if self.breaking else self.kind
        readers = f"; read by {', '.join(self.readers)}" if self.readers else ""
        return f"{label:<8}  {self.subject}: {self.text}{readers}"


def compare(before: Contracts, after: Contracts) -> list[ContractChange]:
    """Return the differences between two states of the same locations, the breaking ones first.

    A change breaks others if it removes or retypes a column, removes a check, changes the partitions or
    removes an asset, and another asset depends on it. Removing a job always does, because people and
    programs start it by its name.
    """
    readers: dict[str, list[str]] = {}
    for contract in after.values():
        for name, asset in contract.get("assets", {}).items():
            for upstream in asset["depends_on"]:
                readers.setdefault(upstream, []).append(name)
    changes = [*_assets(before, after, readers), *_automation(before, after)]
    return sorted(changes, key=lambda change: (not change.breaking, change))


def _located(contracts: Contracts) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return each asset with its location, by its key: an asset may move to another location."""
    return {
        key: (location, asset)
        for location, contract in contracts.items()
        for key, asset in contract.get("assets", {}).items()
    }


def _assets(
    before: Contracts, after: Contracts, readers: Mapping[str, list[str]]
) -> Iterator[ContractChange]:
    old, new = _located(before), _located(after)
    for key in old.keys() | new.keys():
        used_by = tuple(sorted(readers.get(key, ())))
        if key not in new:
            yield ContractChange(
                old[key][0], key, "removed", "the asset is removed", used_by, bool(used_by)
            )
        elif key not in old:
            yield ContractChange(new[key][0], key, "added", "the asset is new")
        else:
            (was, one), (location, other) = old[key], new[key]
            if was != location:
                yield ContractChange(location, key, "changed", f"location {was} -> {location}")
            yield from _asset(location, key, one, other, used_by)


def _asset(
    location: str,
    key: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    used_by: tuple[str, ...],
) -> Iterator[ContractChange]:
    for singular, field in (("column", "columns"), ("check", "checks")):
        for name, kind, text in _entries(singular, old.get(field, {}), new.get(field, {})):
            # A column that no longer has nulls, or a stricter check, breaks no reader.
            stricter = f"{old[field].get(name)} not null" == new[field].get(name)
            lost = kind == "removed" or (kind == "changed" and field == "columns" and not stricter)
            if lost and used_by:
                yield ContractChange(location, key, kind, text, used_by, breaking=True)
            else:
                yield ContractChange(location, key, kind, text)
    for field in ("partitions", "owners", "depends_on"):
        if old.get(field) != new.get(field):
            text = f"{field} {_shown(old.get(field))} -> {_shown(new.get(field))}"
            if field == "partitions" and used_by:
                yield ContractChange(location, key, "changed", text, used_by, breaking=True)
            else:
                yield ContractChange(location, key, "changed", text)


def _automation(before: Contracts, after: Contracts) -> Iterator[ContractChange]:
    for location in before.keys() | after.keys():
        old, new = before.get(location, {}), after.get(location, {})
        for singular, field in (("job", "jobs"), ("schedule", "schedules"), ("sensor", "sensors")):
            one, other = ({**_named(contract.get(field, ()))} for contract in (old, new))
            for _, kind, text in _entries(singular, one, other):
                yield ContractChange(
                    location, location, kind, text, breaking=singular == "job" and kind == "removed"
                )


def _named(values: Mapping[str, str] | list[str]) -> Mapping[str, str]:
    return values if isinstance(values, Mapping) else dict.fromkeys(values, "")


def _entries(
    singular: str, old: Mapping[str, str], new: Mapping[str, str]
) -> Iterator[tuple[str, Literal["added", "removed", "changed"], str]]:
    """Yield the name of each entry that differs, how it differs, and the text."""
    for name in old.keys() | new.keys():
        if name not in new:
            yield name, "removed", f"{singular} {name} is removed"
        elif name not in old:
            detail = f": {new[name]}" if new[name] else ""
            yield name, "added", f"{singular} {name} is new{detail}"
        elif old[name] != new[name]:
            yield name, "changed", f"{singular} {name}: {old[name]} -> {new[name]}"


def _shown(value: object) -> str:
    return ", ".join(value) or "none" if isinstance(value, list) else str(value or "none")
