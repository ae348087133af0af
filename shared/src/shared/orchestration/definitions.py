"""What a team's `definitions.py` imports: one call that returns a location's definitions."""

import importlib
import warnings
from pathlib import Path
from types import ModuleType

import dagster as dg

from shared import warehouse
from shared.orchestration.alerts import alert_owners
from shared.orchestration.code_references import with_code_references
from shared.orchestration.column_lineage import with_column_lineage
from shared.orchestration.dagster_internals import declared_pipeline, replace_assets
from shared.orchestration.dataset_owners import reject_conflicts
from shared.orchestration.default_status import with_default_status
from shared.orchestration.executor import executor
from shared.orchestration.health_summary import health_summary
from shared.orchestration.related_tables import with_related_tables
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import reject_lost_dependencies


def build_definitions(package: str, *modules: ModuleType) -> dg.Definitions:
    """Return the definitions of a code location.

    They are the assets, checks, jobs, schedules and sensors of the modules, what the package's `defs/`
    folder defines, the resource `dlt`, the alerts, the summary of each day and the executor.

    Args:
        package: the name of the location's package.
        modules: the modules of the package that have definitions.

    Raises:
        DagsterInvalidDefinitionError: the package has no `defs/` folder; or two pipelines would write
            into one table, see `dataset_owners`; or a pipeline that was declared with
            `warehouse.pipeline` is not loaded by `WarehouseDltResource`, or the reverse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        loaded = dg.load_definitions_from_modules(modules)
        in_folder = _load_defs_folder(package)
        of_folder = with_related_tables(in_folder.assets or ())
        of_modules = with_code_references(with_related_tables(loaded.assets or ()))
        assets = with_column_lineage([*of_modules, *of_folder])
        in_modules = dg.Definitions(
            assets=assets[: len(of_modules)],
            asset_checks=loaded.asset_checks,
            jobs=loaded.jobs,
            schedules=loaded.schedules,
            sensors=[*(loaded.sensors or ()), alert_owners, health_summary],
            resources={"dlt": WarehouseDltResource()},
            executor=executor(),
        )
        in_folder = replace_assets(in_folder, assets[len(of_modules) :])
        reject_conflicts(package, assets)
        reject_lost_dependencies(assets)
        merged = dg.Definitions.merge(in_modules, in_folder)
    check_pipelines(merged)
    return with_default_status(merged)


def check_pipelines(defs: dg.Definitions) -> None:
    """Check that each pipeline is loaded by the resource of its kind.

    Raises:
        DagsterInvalidDefinitionError: it is not, so each run would fail.
    """
    resources = defs.resources or {}
    for asset in defs.assets or ():
        if not isinstance(asset, dg.AssetsDefinition) or not (declared := declared_pipeline(asset)):
            continue
        key, pipeline = declared
        used = [resources.get(name) for name in asset.required_resource_keys]
        is_ours = any(isinstance(resource, WarehouseDltResource) for resource in used)
        if is_ours == isinstance(pipeline, warehouse.PipelineSpec):
            continue
        try:
            warehouse.require_spec(pipeline).refuse_to_run()
        except warehouse.DeclarationError as error:
            text = f"Asset {key.to_user_string()}: {error}"
            raise dg.DagsterInvalidDefinitionError(text) from None


def _load_defs_folder(package: str) -> dg.Definitions:
    """Return what the Python files and the components in a package's `defs/` folder define."""
    folder = Path(importlib.import_module(package).__path__[0])
    if not (folder / "defs" / "__init__.py").is_file():
        raise dg.DagsterInvalidDefinitionError(
            f"{folder / 'defs' / '__init__.py'} is missing: create the file, empty. `dg scaffold defs` "
            "adds definitions to its folder."
        )
    if next(folder.glob("defs/[!_.]*"), None) is None:
        return dg.Definitions()
    # Not `load_from_defs_folder`: it needs a pyproject.toml, which an installed wheel does not have.
    project = next((path for path in folder.parents if (path / "pyproject.toml").exists()), folder)
    defs = importlib.import_module(f"{package}.defs")
    tree = dg.ComponentTree.from_module(defs, project_root=project)
    try:
        # Not the root of the tree: it also imports each installed package with components, such as dbt, to
        # list their types in the UI.
        in_folder = tree.build_defs(".")
    except Exception as error:
        if isinstance(error.__cause__, dg.DagsterInvalidDefinitionError):
            raise error.__cause__ from None  # the file and the key come first, not the tree
        raise
    return dg.Definitions.merge(in_folder, dg.Definitions(component_tree=tree))
