"""Code shared by all code locations.

`sources` extract (pure dlt), `warehouse` loads exactly and reads back, `orchestration` connects both to
Dagster, `cli` is the `etl` command.
"""
