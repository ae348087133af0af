"""What a team declares about a pipeline: its name, its dataset and how it reports progress."""

from typing import Literal, NoReturn

import dlt
from dlt.extract import DltResource, DltSource

from shared.warehouse.errors import DeclarationError, NotRunnableError
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

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what a pipeline of dlt can do beyond its declaration, such as `run`.

        Raises:
            NotRunnableError: always; see `refuse_to_run`.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        self.refuse_to_run()

    def refuse_to_run(self) -> NoReturn:
        """Say what loads a declared pipeline.

        Raises:
            NotRunnableError: always.
        """
        raise NotRunnableError(
            f"{self!r} is a declaration and cannot run. In Dagster, an asset's parameter "
            "`dlt: WarehouseDltResource` loads it, in place of DagsterDltResource; the component is "
            "WarehouseLoadComponent, in place of DltLoadCollectionComponent. Without Dagster, use "
            "warehouse.load(warehouse.plan_load(...))."
        )

    def __repr__(self) -> str:
        """Return the call that declares it."""
        return f"pipeline({self.pipeline_name!r}, dataset_name={self.dataset_name!r})"


def pipeline(pipeline_name: str, dataset_name: str, progress: Progress = "log") -> PipelineSpec:
    """Declare a pipeline into the warehouse. It touches nothing, so a module's body may call it."""
    return PipelineSpec(pipeline_name, dataset_name, progress)


def require_spec(pipeline: object) -> PipelineSpec:
    """Return a pipeline that was declared with `pipeline`.

    Raises:
        DeclarationError: it was created by `dlt.pipeline()`.
    """
    if isinstance(pipeline, PipelineSpec):
        return pipeline
    name, dataset = (getattr(pipeline, key, None) for key in ("pipeline_name", "dataset_name"))
    raise DeclarationError(
        f"The pipeline {name!r} was created by dlt.pipeline(), which owns a working directory from the "
        f"start; declare it with shared.warehouse.pipeline({name!r}, dataset_name={dataset!r})."
    )


def require_source(source: object) -> DltSource:
    """Return a source of dlt.

    Raises:
        DeclarationError: it is something else, such as a resource.
    """
    if isinstance(source, DltSource):
        return source
    what = f"the resource {source.name!r}" if isinstance(source, DltResource) else repr(source)
    raise DeclarationError(
        f"{what} is not a dlt source: return the resource from a @dlt.source function, and pass what the "
        "function returns."
    )
