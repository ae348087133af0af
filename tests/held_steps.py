"""A code location whose steps wait until a test lets them go on.

They run in processes of others; HOLD names the folder through which the test and they speak.
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


def began(step: str) -> Path:
    """Tells the test that a step has begun, which process executes it, and whose child that is."""
    folder = Path(os.environ["HOLD"])
    (folder / f"{step}.{os.getpid()}").write_text(str(os.getppid()))
    return folder / step


@dlt.source(name="letters")
def letters(wanted: Sequence[str]) -> DltResource:
    """Yields the rows of some letters, once their files are gone from the folder."""

    @dlt.resource(
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        columns={"letter": {"data_type": "text", "partition": True}},
    )
    def numbers() -> Iterator[list[dict[str, object]]]:
        for letter in wanted:
            held = began(letter)
            yield [{"letter": letter, "number": number} for number in range(ROWS // 2)]
            while held.exists():
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
    """Loads a letter."""
    yield from dlt.run(context=context, dlt_source=letters(context.partition_keys))


@dg.asset
def deadly() -> None:
    """Kills the process that executes it."""
    began("deadly")
    os.kill(os.getpid(), signal.SIGKILL)


defs = dg.Definitions(
    assets=[numbers, deadly],
    jobs=[dg.define_asset_job("numbers_job", [numbers])],
    resources={"dlt": WarehouseDltResource()},
    executor=executor(),
)
