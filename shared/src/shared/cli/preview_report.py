"""The summary of a preview, as JSON and as Markdown for a comment in a pull request."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.cli.contract_changes import ContractChange
from shared.cli.preview_tables import StoredTable
from shared.cli.reports import AssetResult
from shared.cli.touched import TouchedAsset
from shared.redaction import redact


@dataclass(frozen=True)
class PreviewReport:
    """What a preview has loaded, and how it differs from what others use.

    Attributes:
        base: the branch that it compares with.
        commit: the commit at which the work left that branch.
        environment: the environment that it loads.
        before_name: the environment whose rows are those before.
        partitions: which partitions it loads, as the profile states it.
        touched: the assets that the change touches.
        results: the result of each loaded asset, by its key.
        before: their tables before.
        after: their tables after.
        contract: how the contracts differ.
        declared: the declared columns of each asset, with dlt's types.
        notes: what the reader must know about it, each in one line.
    """

    base: str
    commit: str
    environment: str
    before_name: str
    partitions: str
    touched: Sequence[TouchedAsset]
    results: Mapping[str, AssetResult]
    before: Mapping[str, StoredTable]
    after: Mapping[str, StoredTable]
    contract: Sequence[ContractChange]
    declared: Mapping[str, Mapping[str, str]]
    notes: Sequence[str]

    @property
    def has_failed(self) -> bool:
        """Whether a load or a check with the severity ERROR failed."""
        return any(
            result.status == "failed"
            or any(not check.passed and check.severity == "ERROR" for check in result.checks)
            for result in self.results.values()
        )

    def document(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "base": self.base,
            "commit": self.commit,
            "environment": self.environment,
            "compared_with": self.before_name,
            "partitions": self.partitions,
            "failed": self.has_failed,
            "assets": [self._asset(item) for item in self.touched],
            "contract": [vars(change) for change in self.contract],
            "migrations": self.migrations,
            "notes": list(self.notes),
        }

    @property
    def migrations(self) -> list[str]:
        """The commands that change the tables of `before_name`, because a load does not retype a column."""
        return [
            f"uv run etl migrate {item.key.replace('/', '.')} --column {name} --type '{new}'"
            for item in self.touched
            if (before := self.before.get(item.key)) and (after := self.after.get(item.key))
            for name, declared in self.declared.get(item.key, {}).items()
            if before.columns.get(name, "") != after.columns.get(name, "")
            and name in before.columns
            if (new := declared.removesuffix(" not null")) != "undeclared"
        ]

    def _asset(self, item: TouchedAsset) -> dict[str, Any]:
        result = self.results.get(item.key)
        before, after = self.before.get(item.key), self.after.get(item.key)
        return {
            "asset": item.key,
            "location": item.location,
            "change": item.change,
            "reasons": list(item.reasons),
            "status": result.status if result else None,
            "error": result.error if result else "",
            "rows_before": before.rows if before else None,
            "rows_after": after.rows if after else None,
            "columns": list(_column_changes(before, after)),
            "checks": [vars(check) for check in result.checks] if result else [],
        }

    def markdown(self) -> str:
        """Return the summary for a pull request."""
        lines = [
            f"# Preview `{self.environment}`",
            "",
            f"Compared with `{self.base}` ({self.commit[:10]}). Partitions: {self.partitions}.",
            *(f"\n> {_text(note)}" for note in self.notes),
        ]
        if not self.touched:
            return "\n".join([*lines, "", "No asset is touched, so nothing was loaded.", ""])
        sections = [
            self._assets(),
            self._columns(),
            self._migrations(),
            self._failures(),
            self._contract(),
        ]
        return "\n".join(lines + [line for section in sections for line in section]) + "\n"

    def _assets(self) -> Iterator[str]:
        yield f"\n| asset | change | result | rows in {self.before_name} | rows here | checks |"
        yield "|---|---|---|---:|---:|---|"
        for item in self.touched:
            result = self.results.get(item.key)
            before, after = self.before.get(item.key), self.after.get(item.key)
            cells = [
                f"`{item.key}`",
                item.description,
                {"done": "loaded"}.get(result.status, result.status) if result else "",
                f"{before.rows:,}" if before else "",
                f"{after.rows:,}" if after else "",
                _checked(result),
            ]
            yield f"| {' | '.join(map(_text, cells))} |"

    def _columns(self) -> Iterator[str]:
        changes = {
            item.key: lines
            for item in self.touched
            if (lines := [*_column_changes(self.before.get(item.key), self.after.get(item.key))])
        }
        if changes:
            yield "\n## Columns\n\n```diff"
            for key, lines in changes.items():
                yield from [f"  {key}", *lines]
            yield "```"

    def _migrations(self) -> Iterator[str]:
        if self.migrations:
            yield f"\nA load does not retype a column that has rows. After the merge, in {self.before_name}:"
            yield from ["\n```", *self.migrations, "```"]

    def _failures(self) -> Iterator[str]:
        failed = [item for item in self.results.values() if item.status in ("failed", "skipped")]
        reasons = [(item.asset or item.location, item.error) for item in failed if item.error]
        if reasons:
            yield "\n## Failed loads\n"
            for name, error in reasons:
                yield f"- `{name}`: {_text(error)}"
        checks = [
            (result.asset, check)
            for result in self.results.values()
            for check in result.checks
            if not check.passed
        ]
        if checks:
            yield "\n## Failed checks\n"
            for asset, check in checks:
                label = f"`{asset}`, {check.name} ({check.severity})"
                yield f"- {label}: {_text(check.description)}"

    def _contract(self) -> Iterator[str]:
        if self.contract:
            yield "\n## Contract\n\n```"
            yield from map(str, self.contract)
            yield "```"


def _column_changes(before: StoredTable | None, after: StoredTable | None) -> Iterator[str]:
    """Yield the lines of the difference between a table's columns; none if one has no table."""
    if before is None or after is None:
        return
    for name in dict.fromkeys([*before.columns, *after.columns]):
        old, new = before.columns.get(name), after.columns.get(name)
        if old != new:
            yield from [f"- {name} {old}"] if old else []
            yield from [f"+ {name} {new}"] if new else []


def _checked(result: AssetResult | None) -> str:
    if result is None or not result.checks:
        return ""
    failed = sum(not check.passed for check in result.checks)
    passed = len(result.checks) - failed
    return f"{passed} passed" + (f", **{failed} failed**" if failed else "")


def _text(text: str) -> str:
    """Return a text for one line or one cell of Markdown."""
    return " ".join(redact(text).split()).replace("|", "\\|")
