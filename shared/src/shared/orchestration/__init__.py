"""Everything that imports Dagster: it plans a load from a run and reports its result."""
