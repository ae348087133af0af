"""What a team declares about a pipeline: its name, its dataset and how it reports progress."""

from typing import Literal

import dlt

from shared.warehouse.tables import normalize_name

Progress = Literal["tqdm", "enlighten", "log", "alive_progress"]


class PipelineSpec(dlt.Pipeline):
    """A pipeline's name and dataset, without a working directory or a destination.

    `dlt.pipeline()` creates (and may wipe) its working directory when it is called, so it has no place
    in a module's body. `@dlt_assets` accepts only a `dlt.Pipeline`, so this is one by type. It cannot
    run: `plan_load` and `load` do.
    """

    destination = None  # type: ignore[assignment]  # the environment of the run decides

    def __init__(self, pipeline_name: str, dataset_name: str, progress: Progress = "log") -> None:
        # No super().__init__(): it is what creates the working directory.
        self.pipeline_name = pipeline_name
        self.dataset_name = normalize_name(dataset_name)  # as dlt names it in the warehouse
        self.progress = progress

    def __repr__(self) -> str:
        """Return the call that declares it."""
        return f"pipeline({self.pipeline_name!r}, dataset_name={self.dataset_name!r})"


def pipeline(pipeline_name: str, dataset_name: str, progress: Progress = "log") -> PipelineSpec:
    """Declare a pipeline into the warehouse. It touches nothing, so a module's body may call it."""
    return PipelineSpec(pipeline_name, dataset_name, progress)
