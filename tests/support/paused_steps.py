"""A code location whose steps pause until the test releases them.

The steps run in other processes. They and the test communicate through files in the directory that
PAUSE_FOLDER names.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import dlt
from dagster_dlt import dlt_assets
from dlt.extract import DltResource

from shared import warehouse
from shared.orchestration.executor import executor
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator

ROWS = 100


def report_start(step: str) -> Path:
    """Report to the test that a step has started, and write the name and the process of its worker.

    Returns:
        The file that pauses the step as long as it exists.
    """
    folder = Path(os.environ["PAUSE_FOLDER"])
    worker = f"{os.environ.get('WORKER', '')} {os.getppid()}"
    (folder / f"{step}.{os.getpid()}").write_text(worker)
    return folder / step


@dlt.source(name="parts")
def parts(names: Sequence[str]) -> DltResource:
    """Yield the rows of the named parts: half of them before the pause, half of them after it."""

    @dlt.resource(
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        columns={"part": {"data_type": "text", "partition": True}},
    )
    def numbers() -> Iterator[list[dict[str, object]]]:
        for part in names:
            pause = report_start(part)
            yield [{"part": part, "number": number} for number in range(ROWS // 2)]
            while pause.exists():
                time.sleep(0.05)
            yield [{"part": part, "number": number} for number in range(ROWS // 2, ROWS)]

    return numbers


@dlt_assets(
    dlt_source=parts([]),
    dlt_pipeline=warehouse.pipeline("parts_pipeline", "parts"),
    dagster_dlt_translator=WarehouseTranslator(owner="team:parts"),
    partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]),
    name="numbers",
)
def numbers(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    """Load a part."""
    yield from dlt.run(context=context, dlt_source=parts(context.partition_keys))


@dg.asset
def self_killing() -> None:
    """Kill the process that executes the step."""
    report_start("self_killing")
    os.kill(os.getpid(), signal.SIGKILL)


defs = dg.Definitions(
    assets=[numbers, self_killing],
    jobs=[dg.define_asset_job("numbers_job", [numbers])],
    resources={"dlt": WarehouseDltResource()},
    executor=executor(),
)
