"""The modules that the processes of `dagster dev` import: libraries only, none of this workspace.

Code of the workspace is imported by each process, so that a reload reads what has changed. A module here
starts no thread. Most are Dagster's private ones, because it imports them where it uses them. If one is
missing in another version, processes only start slower; a test names it.
"""

DAGSTER_MODULES = (
    "dagster_dlt",
    "dagster_graphql.schema.config_type_or_error",
    "dagster_webserver.cli",
    "dagster._api.get_server_id",
    "dagster._api.list_repositories",
    "dagster._api.snapshot_repository",
    "dagster._cli",
    "dagster._core.definitions.external_asset",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.instance.factory",
    "dagster._core.remote_representation.external",
    "dagster._core.storage.root",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
    "dagster._core.workspace.autodiscovery",
    "dagster._daemon.cli",
    "dagster._grpc.client",
    "dagster._grpc.proxy_server",
    "dagster._grpc.server_watcher",
    "dagster._utils.test.definitions",
    "dlt._workspace.cli._plugins",
    "dlt.common.configuration.plugins",
    "dlt.destinations.impl.duckdb.duck",
    "dlt.sources.helpers.requests",
    "duckdb",
    "grpc_health.v1.health",
    "pluggy",
    "sqlglot",
    "upath.implementations.local",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
    "xxhash",
)
