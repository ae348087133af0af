"""A location's part of `etl run`, in a process of its own: it plans, waits for a word, materializes."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from filelock import FileLock

from shared.cli.reports import AssetResult, Plan, RunSelection
from shared.redaction import redact

if TYPE_CHECKING:  # importing Dagster takes seconds, and only this process needs it
    import dagster as dg
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

LOGS = Path(".dagster/etl_run")
SECONDS_TO_END = 15
"""How long an interrupted run may take to tell Dagster that it was."""


Channel: TypeAlias = "Connection[Any, Any]"
"""What `etl run` and a location's process tell each other by."""

_BODY = "from shared.cli.location_process import main; main()"


def start(
    location: str, module: str, asked: RunSelection, python: str
) -> "tuple[subprocess.Popen[bytes], Channel]":
    """Starts the process of a location, which logs to a file, in the working folder.

    It tells its `Plan`, waits to be sent anything, and tells its reports. Closing the channel ends it,
    with the run that is at work; so does the end of this process, however it came.

    Args:
        location: its name.
        module: that of its definitions.
        asked: what to run of it.
        python: the interpreter, whose environment has the module and `shared`.

    Raises:
        OSError: there is no such interpreter.
    """
    ours, theirs = Pipe()
    with theirs, (LOGS / f"{location}.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603 - our own code, by an interpreter of workspace.yaml
            [python, "-P", "-c", _BODY, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # a terminal sends its interrupt to all; see `_obey`
        )
    ours.send((location, module, asked))
    return process, ours


def main() -> None:
    """Is the process that `start` starts."""
    channel = Connection(int(sys.argv[1]))
    location, module, asked = channel.recv()
    go = threading.Event()
    threading.Thread(target=_obey, args=(channel, go), daemon=True).start()
    _run_location(location, module, asked, channel.send, go)


def _obey(channel: Channel, go: threading.Event) -> None:
    """Lets runs begin at the command's word, and interrupts this process when the channel is closed."""
    with suppress(EOFError, OSError):
        channel.recv()
        go.set()
        channel.recv()
    go.clear()
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(SECONDS_TO_END)
    os._exit(1)


def _run_location(
    location: str,
    module: str,
    asked: RunSelection,
    tell: Callable[[Plan | AssetResult], None],
    go: threading.Event,
) -> None:
    """Tells what it would run, waits for `go`, and tells what became of each asset."""
    try:
        import dagster as dg

        defs: dg.Definitions = importlib.import_module(module).defs
        with FileLock(LOGS / "instance.lock"):  # two processes must not create its tables at once
            instance = dg.DagsterInstance.get()
        graph = defs.resolve_asset_graph()
        keys, unknown = _selected(graph, asked.selections)
        why = problem(graph, keys, asked.partitions, instance) if asked.partitions else ""
        tell(Plan(location, _names(keys), _names(_all(graph)), unknown, why))
        go.wait()
        for report in _materialize(
            location, defs, keys, asked.partitions, instance=instance, go=go
        ):
            tell(report)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this location's failure
        print(redact(traceback.format_exc()))
        words = redact(f"{type(error).__name__}: {error}")
        tell(AssetResult(location, "", "failed", error=words))


def _names(keys: "Sequence[dg.AssetKey]") -> tuple[str, ...]:
    return tuple(key.to_user_string() for key in keys)


def _all(graph: "AssetGraph") -> "list[dg.AssetKey]":
    """Returns what can be materialized, upstream first."""
    return [key for key in graph.toposorted_asset_keys if key in graph.materializable_asset_keys]


def _selected(
    graph: "AssetGraph", selections: tuple[str, ...] | None
) -> "tuple[list[dg.AssetKey], tuple[str, ...]]":
    """Returns the assets that are selected, upstream first, and the selections that name none.

    An asset that a check may keep from running comes with what is checked: it would run unchecked.
    """
    import dagster as dg

    if selections is None:
        return _all(graph), ()
    selected: set[dg.AssetKey] = set()
    unknown = []
    for selection in selections:
        try:
            found = dg.AssetSelection.from_string(selection).resolve(graph)
        except dg.DagsterError:
            found = frozenset()
        if not found:
            unknown.append(selection)
        selected |= found
    more = selected
    while more:
        more = {
            parent
            for key in more
            for parent in graph.get(key).parent_keys
            if any(graph.get(check).blocking for check in graph.get(parent).check_keys)
        } - selected
        selected |= more
    return [key for key in _all(graph) if key in selected], tuple(unknown)


def problem(
    graph: "AssetGraph",
    keys: "Sequence[dg.AssetKey]",
    partitions: tuple[str, str],
    instance: "dg.DagsterInstance",
) -> str:
    """Returns why some partitions cannot be run as a single run of some assets; empty if they can."""
    for key in keys:
        node, name = graph.get(key), key.to_user_string()
        if node.partitions_def is None:
            return f"{name} has no partitions; name assets that have the one you ask for."
        has = _partition_keys(node, instance)
        for each in partitions:
            if each not in has:
                those = f"those it has are {has[0]} to {has[-1]}" if has else "it has none yet"
                return f"{name} has no partition {each!r}; {those}."
        first, last = partitions
        if has.index(first) > has.index(last):
            return f"{name} has {first} after {last}; --from names the earlier partition."
        policy = node.backfill_policy
        if first != last and not (policy and policy.max_partitions_per_run is None):
            return (
                f"{name} runs partitions one by one, for it has no "
                "backfill_policy=dg.BackfillPolicy.single_run(); use --partition."
            )
    return ""


def _partition_keys(node: Any, instance: "dg.DagsterInstance") -> list[str]:
    """Returns the partitions of an asset; of the sample's files those that are not known yet as well."""
    has = list(node.partitions_def.get_partition_keys(dynamic_partitions_store=instance))
    if _dynamic(node.partitions_def):
        has += sorted(_sample_partitions([node.metadata]) - set(has))
    return has


def _dynamic(partitions: "dg.PartitionsDefinition[Any]") -> str:
    """Returns the name under which an instance keeps partitions that are added as they come."""
    import dagster as dg

    return (isinstance(partitions, dg.DynamicPartitionsDefinition) and partitions.name) or ""


def _sample_partitions(metadata: Sequence[Any]) -> set[str]:
    from shared.orchestration.translator import SAMPLE_PARTITIONS

    return {key for entries in metadata for key in entries.get(SAMPLE_PARTITIONS, [])}


def _materialize(
    location: str,
    defs: "dg.Definitions",
    keys: "Sequence[dg.AssetKey]",
    asked: tuple[str, str] | None,
    *,
    instance: "dg.DagsterInstance",
    go: threading.Event,
) -> Iterator[AssetResult]:
    """Runs some assets, those with the same partitions together, and reports each."""
    import dagster as dg

    graph = defs.resolve_asset_graph()
    groups: dict[dg.PartitionsDefinition[Any] | None, list[dg.AssetKey]] = {}
    for key in keys:
        groups.setdefault(graph.get(key).partitions_def, []).append(key)
        yield AssetResult(location, key.to_user_string(), "waiting")
    job = defs.resolve_implicit_global_asset_job_def()
    for partitions, together in groups.items():
        for key in together:
            yield AssetResult(location, key.to_user_string(), "running")
        metadata = [graph.get(key).metadata for key in together]
        results = [
            job.execute_in_process(
                asset_selection=together, instance=instance, tags=tags, raise_on_error=False
            )
            for tags in _runs(partitions, metadata, asked, instance)
            if go.is_set()
        ]
        if not go.is_set():
            return
        yield from _reports(location, together, results)


def _runs(
    partitions: "dg.PartitionsDefinition[Any] | None",
    metadata: Sequence[Any],
    asked: tuple[str, str] | None,
    instance: "dg.DagsterInstance",
) -> list[dict[str, str]]:
    """Returns the tags of the runs that cover the partitions; one without, if there are none.

    Those are what is asked for, else what the sample has.
    """
    if partitions is None:
        return [{}]
    bundled = _sample_partitions(metadata)
    if name := _dynamic(partitions):
        missing = [
            key
            for key in sorted(bundled & set(asked) if asked else bundled)
            if not instance.has_dynamic_partition(name, key)
        ]
        instance.add_dynamic_partitions(name, missing)
    ranges = [asked] if asked else [_range(entry) for entry in sorted(bundled)]
    return [
        {
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        }
        for first, last in ranges
    ]


def _range(entry: str) -> tuple[str, str]:
    first, _, last = entry.partition("...")
    return first, last or first


def _reports(
    location: str, keys: "Sequence[dg.AssetKey]", results: "Sequence[dg.ExecuteInProcessResult]"
) -> Iterator[AssetResult]:
    """Returns what became of each asset over one or more runs."""
    for key in keys:
        name = key.to_user_string()
        if not results:
            yield AssetResult(location, name, "skipped")
        elif error := next(filter(None, (_error(result, key) for result in results)), None):
            yield AssetResult(location, name, "failed", error=error)
        else:
            metadata = _events(results[-1], key)[-1].materialization.metadata
            rows, table = metadata.get("dagster/row_count"), metadata.get("dagster/table_name")
            yield AssetResult(
                location,
                name,
                "done",
                rows=int(str(rows.value)) if rows else None,
                seconds=sum(_seconds(result, key) for result in results),
                table=".".join(str(table.value).rsplit(".", 2)[1:]) if table else "",
            )


def _events(result: "dg.ExecuteInProcessResult", key: "dg.AssetKey") -> "list[dg.DagsterEvent]":
    """Returns a run's materializations of an asset."""
    return [event for event in result.get_asset_materialization_events() if event.asset_key == key]


def _error(result: "dg.ExecuteInProcessResult", key: "dg.AssetKey") -> str | None:
    """Returns why an asset did not materialize in a run: the innermost error, or a failed check."""
    for check in result.get_asset_check_evaluations():
        failed = not check.passed and check.severity.value == "ERROR"
        if check.asset_key == key and failed:
            return f"check {check.check_name}: {check.description}"
    if _events(result, key):
        return None
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error, told = event.step_failure_data.error, event.step_failure_data.user_failure_data
            if told and told.description:
                return f"{event.step_key} failed: {told.description}"
            if error.cls_name == "DagsterAssetCheckFailedError":
                return "not run, for a check of what it needs failed"
            while error.cause:
                error = error.cause
            return f"{event.step_key} failed: {error.message.strip()}"
    return "its run did not reach it"


def _seconds(result: "dg.ExecuteInProcessResult", key: "dg.AssetKey") -> float:
    """Returns how long the step that materialized an asset took."""
    steps = {event.step_key for event in _events(result, key)}
    return sum(
        event.step_success_data.duration_ms / 1000
        for event in result.all_events
        if event.is_step_success and event.step_key in steps
    )
