"""What a step reads about the assets that it depends on."""

import dagster as dg

from shared.orchestration.dagster_internals import run_records


def upstream_materialization(
    context: dg.AssetExecutionContext, key: dg.AssetKey
) -> dg.AssetMaterialization | None:
    """Return the materialization of an upstream asset in this run or in the run that it retries.

    For an asset that runs alone it is the latest materialization; None if there is none.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    for run_id in (context.run.run_id, context.run.parent_run_id, context.run.root_run_id):
        for record in run_records(context.instance, run_id, kind) if run_id else ():
            event = record.event_log_entry.asset_materialization
            if event and event.asset_key == key:
                return event
    latest = context.instance.get_latest_materialization_event(key)
    return latest.asset_materialization if latest else None
