"""The modules that the processes of `dagster dev` import: libraries only, none of this workspace.

Code of the workspace is imported by each process, so that a reload reads what has changed.
A module here starts no thread and reads nothing of the environment. Dagster's own names have an underscore
because it imports these modules where it needs them; a name that is gone only starts slower.
"""

DAGSTER_MODULES = (
    "dagster_dlt",
    "dagster_webserver.cli",
    "dagster_graphql.schema",
    "dagster._cli",
)
