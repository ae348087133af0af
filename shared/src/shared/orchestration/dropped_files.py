"""Dropped files in Dagster: the check before their load, and the sensor that requests it."""

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import blake2b

import dagster as dg

from shared import settings
from shared.orchestration.failures import as_dagster_failure
from shared.sources.drop_folder import DropFolder, FileStat, InvalidFileError
from shared.sources.files import FileFormat, OnBadRows, validate_file

MAX_FILES_PER_TICK = 100
"""Files that a tick of the sensor reads; the others wait for the next tick. A tick may take a minute."""


def file_check(
    asset: dg.AssetKey, file_format: FileFormat, on_bad_rows: OnBadRows = "fail"
) -> dg.AssetCheckSpec:
    """Return the spec of the check of `check_files`. It blocks: no row is loaded if it fails."""
    rules = " and ".join(["every value fits its type", *file_format.rules.values()])
    row_rules = "" if on_bad_rows == "quarantine" else f", {rules}"
    return dg.AssetCheckSpec(
        name="file_is_loadable",
        asset=asset,
        blocking=True,
        description=f"The columns are as declared, there are rows{row_rules}.",
    )


def file_columns(file_format: FileFormat) -> dict[str, dg.TableSchema]:
    """Return, as the metadata of an asset of files, their columns: column lineage begins there."""
    fields = file_format.source_fields
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    fields.get(name, name),
                    str(hints["data_type"]),
                    description=hints.get("description"),
                )
                for name, hints in file_format.columns.items()
            ]
        )
    }


def check_files(
    paths: Mapping[str | None, str],
    file_format: FileFormat,
    on_bad_rows: OnBadRows = "fail",
    *,
    context: dg.AssetExecutionContext | None = None,
    folder: str | None = None,
) -> dg.MaterializeResult[None]:
    """Check files of a folder, and report them as imported.

    The metadata `content` has the XXH3-128 hash of each file, from which the sensor knows what is loaded.

    Args:
        paths: the file of each partition, or of None without partitions.
        file_format: what the files must look like.
        on_bad_rows: what the table does with bad rows; with `quarantine` they pass this check.
        context: the partitioned asset's context, which gets the metadata of each partition.
        folder: the folder, as for `file_source`.

    Raises:
        Failure: a path is outside the folder, is missing or is not a file.
    """
    problems: list[str] = []
    metadata: dict[str, dict[str, str]] = {}
    with as_dagster_failure():
        drop_folder = DropFolder(folder or settings.drop_folder())
    for partition, path in paths.items():
        with as_dagster_failure():
            # Hash before the check: if the file changes meanwhile, the sensor detects it.
            content = {"content": {path: drop_folder.content_hash(path)}}
        if context is None:
            metadata |= content
        else:
            context.add_asset_metadata(content, partition_key=partition)
        problems += validate_file(path, file_format, on_bad_rows, folder=folder)
    return dg.MaterializeResult(
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                passed=not problems,
                description="; ".join(problems) or f"{len(paths)} checked, all loadable",
                metadata={"problems": problems, "files": len(paths)},
            )
        ],
    )


def content_hashes(imported: dg.AssetMaterialization) -> dict[str, str]:
    """Return the XXH3-128 hash of each file that `check_files` reported, by path."""
    content = imported.metadata["content"].value if "content" in imported.metadata else {}
    assert isinstance(content, dict)
    return content


def build_dropped_files_sensor(
    asset: dg.AssetKey,
    partitions_def: dg.DynamicPartitionsDefinition,
    *,
    job_name: str,
    name: str = "dropped_files_sensor",
    suffix: str = ".csv",
    folder: str | None = None,
) -> dg.SensorDefinition:
    """Return a sensor that requests a run for each new or changed file, once for each content.

    A file is read when two consecutive ticks see it with the same size and modification time; until
    then it may be incomplete. The cursor keeps eight characters for each file: a digest of its path,
    size and time. What was loaded before comes from the asset's own history, so after a lost cursor
    each file is read once. No run is repeated if the asset reports its files with `check_files`.

    Args:
        asset: the asset with a partition for each file.
        partitions_def: its partitions, which have the paths of the files.
        job_name: the name of the job that loads them, which is in the location's definitions.
        name: the name of the sensor.
        suffix: how the names of the files end, without the suffix of a compression.
        folder: the folder, as for `file_source`.
    """

    @dg.sensor(
        job_name=job_name,
        name=name,
        minimum_interval_seconds=30,
        description="Loads each new or changed file of the folder once it is completely written.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        drop_folder = DropFolder(folder or settings.drop_folder())
        try:
            listing = drop_folder.list(suffix)
        except InvalidFileError as error:
            return dg.SkipReason(str(error))
        return _request_runs(context, asset, partitions_def, drop_folder, listing)

    return sensor


def _request_runs(
    context: dg.SensorEvaluationContext,
    asset: dg.AssetKey,
    partitions_def: dg.DynamicPartitionsDefinition,
    drop_folder: DropFolder,
    listing: Mapping[str, FileStat],
) -> dg.SensorResult:
    cursor = json.loads(context.cursor) if context.cursor else {"known": "", "waiting": ""}
    states = {path: _digest(path, state) for path, state in listing.items()}
    known, waiting = set(_split(cursor["known"])), _split(cursor["waiting"])
    by_digest = {digest: path for path, digest in states.items()}
    settled = [by_digest[digest] for digest in waiting if digest in by_digest][:MAX_FILES_PER_TICK]

    requests = []
    unread: set[str] = set()
    for path in settled:
        try:
            content = drop_folder.content_hash(path)
        except (OSError, InvalidFileError) as error:
            context.log.warning("%s could not be read; the next tick retries: %s", path, error)
            unread.add(path)
            continue
        loaded, event = _latest_import(context.instance, asset, path)
        if content != loaded:
            # Dagster ignores a second request with the same key: same content after the same event.
            requests.append(dg.RunRequest(run_key=f"{path}@{content}@{event}", partition_key=path))
    new = [request.partition_key for request in requests if request.partition_key]
    done = known | {states[path] for path in settled if path not in unread}
    known_now = [digest for digest in states.values() if digest in done]
    # Unreadable files come last, so that no other file waits for them.
    waiting_now = [d for path, d in states.items() if d not in done and path not in unread]
    waiting_now += [states[path] for path in sorted(unread)]
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[partitions_def.build_add_request(new)],
        cursor=json.dumps({"known": "".join(known_now), "waiting": "".join(waiting_now)}),
        skip_reason=None
        if requests
        else f"{len(listing)} files, none new or changed, {len(waiting_now)} may be incomplete",
    )


def _digest(path: str, state: FileStat) -> str:
    text = f"{path}\0{state.size}\0{state.modified}"
    return b64encode(
        blake2b(text.encode(errors="surrogateescape"), digest_size=6).digest()
    ).decode()


def _split(digests: str) -> list[str]:
    return [digests[i : i + 8] for i in range(0, len(digests), 8)]


def _latest_import(
    instance: dg.DagsterInstance, asset: dg.AssetKey, path: str
) -> tuple[str | None, int]:
    """Return the content hash of a file's latest import, and the id of that event."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[path]), limit=1
    ).records
    if not records or records[0].asset_materialization is None:
        return None, 0
    return content_hashes(records[0].asset_materialization).get(path), records[0].storage_id
