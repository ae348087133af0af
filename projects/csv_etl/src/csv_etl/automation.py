"""When files load automatically: a schedule for the file of the day, a sensor for dropped files."""

import json
from base64 import b64encode
from hashlib import blake2b

import dagster as dg

from csv_etl.assets import (
    IMPORT_DROPPED_FILE,
    import_daily_file,
    import_dropped_file,
    share_prices_by_file,
    share_prices_daily,
)
from csv_etl.checks import content_hashes
from csv_etl.partitions import by_file
from shared import settings
from shared.sources.csv import DropFolder, FileStat, InvalidFileError

daily_file_job = dg.define_asset_job(
    "daily_file_job",
    selection=dg.AssetSelection.assets(import_daily_file, share_prices_daily),
    description="Checks and loads daily files.",
)

daily_file_schedule = dg.build_schedule_from_partitioned_job(
    daily_file_job,
    name="daily_file_schedule",
    description="Loads yesterday's file, every day at 06:00 UTC.",
    hour_of_day=6,
)

dropped_file_job = dg.define_asset_job(
    "dropped_file_job",
    selection=dg.AssetSelection.assets(import_dropped_file, share_prices_by_file),
    description="Checks and loads dropped files.",
)

MAX_FILES_PER_TICK = 100
"""Files that a tick reads; the others wait for the next tick. A tick may take a minute."""


@dg.sensor(
    job=dropped_file_job,
    minimum_interval_seconds=30,
    description="Loads each new or changed file of the drop folder once it is completely written.",
)
def dropped_files_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Request a run for each new or changed file, once for each content.

    A file is read when two consecutive ticks see it with the same size and modification time; until
    then it may be incomplete. The cursor keeps eight characters for each file: a digest of its path,
    size and time. What was loaded before comes from the asset's own history, so after a lost cursor
    each file is read once and no run is repeated.
    """
    drop_folder = DropFolder(settings.drop_folder())
    try:
        listing = drop_folder.list()
    except InvalidFileError as error:
        return dg.SkipReason(str(error))
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
        loaded, event = _latest_import(context.instance, path)
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
        dynamic_partitions_requests=[by_file.build_add_request(new)],
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


def _latest_import(instance: dg.DagsterInstance, path: str) -> tuple[str | None, int]:
    """Return the content hash of a file's latest import, and the id of that event."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=IMPORT_DROPPED_FILE, asset_partitions=[path]), limit=1
    ).records
    if not records or records[0].asset_materialization is None:
        return None, 0
    return content_hashes(records[0].asset_materialization).get(path), records[0].storage_id
