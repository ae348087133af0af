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
    """Report to the test that a step has started, with its process, its worker and that's process.

    Returns:
        The file that pauses the step as long as it exists.
    """
    folder = Path(os.environ["PAUSE_FOLDER"])
    worker = f"{os.environ.get('WORKER', '')} {os.getppid()}"
    (folder / f"{step}.{os.getpid()}").write_text(worker)
    return folder / step


@dlt.source(name="letters")
def letters(names: Sequence[str]) -> DltResource:
    """Yield the rows of some letters, half of them before the pause and half of them after it."""

    @dlt.resource(
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        columns={"letter": {"data_type": "text", "partition": True}},
    )
    def numbers() -> Iterator[list[dict[str, object]]]:
        for letter in names:
            pause = report_start(letter)
            yield [{"letter": letter, "number": number} for number in range(ROWS // 2)]
            while pause.exists():
                time.sleep(0.05)
            yield [{"letter": letter, "number": number} for number in range(ROWS // 2, ROWS)]

    return numbers


@dlt_assets(
    dlt_source=letters([]),
    dlt_pipeline=warehouse.pipeline("letters_pipeline", "letters"),
    dagster_dlt_translator=WarehouseTranslator(owner="team:letters"),
    partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]),
    name="numbers",
)
def numbers(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    """Load a letter."""
    yield from dlt.run(context=context, dlt_source=letters(context.partition_keys))


@dg.asset
def deadly() -> None:
    """Kill the process that executes the step."""
    report_start("deadly")
    os.kill(os.getpid(), signal.SIGKILL)


defs = dg.Definitions(
    assets=[numbers, deadly],
    jobs=[dg.define_asset_job("numbers_job", [numbers])],
    resources={"dlt": WarehouseDltResource()},
    executor=executor(),
)
