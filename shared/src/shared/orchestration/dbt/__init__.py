"""dbt models as assets: their sources are the tables that loads write, in this and in other locations.

A team's `assets.py` has a `dbt_project`, `@dbt_assets` of dagster-dbt with a `WarehouseDbtTranslator`, and
`yield from build_models(context, project)`.
"""

from shared.orchestration.dbt.project import dbt_project
from shared.orchestration.dbt.run import build_models
from shared.orchestration.dbt.translator import WarehouseDbtTranslator

__all__ = ["WarehouseDbtTranslator", "build_models", "dbt_project"]
