"""deploy/kubernetes: validated against the schemas of Dagster and Kubernetes, without a cluster."""

import json
import os
import re
import runpy
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import duckdb
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from dagster._cli.api import grpc_command
from dagster._config import process_config
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.instance.config import dagster_instance_config
from dagster._core.launcher import LaunchRunContext
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster_k8s import K8sRunLauncher, k8s_job_executor

from shared.cli.locations import code_locations
from shared.redaction import redact
from shared.settings import SETTINGS
from shared.testing.postgres_server import PostgresServer
from simple_etl.definitions import defs
from support.processes import PROGRAMS, python

KUBERNETES = "1.37"
"""The version of the schemas for the manifests."""

Manifest = dict[str, Any]


@pytest.fixture
def generator(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "deploy" / "kubernetes" / "generate.py"))


@pytest.fixture
def values(root: Path) -> dict[str, Any]:
    return read(root, "values.yaml")[0]


def read(root: Path, name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((root / "deploy" / "kubernetes" / name).read_text()))


def valid(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def snake(values: Any, depth: int = 9) -> Any:
    """Return the chart's values with Dagster's names."""
    if not (isinstance(values, dict) and depth):
        return values
    return {
        re.sub(r"([A-Z])", lambda letter: f"_{letter[1].lower()}", name): snake(value, depth - 1)
        for name, value in values.items()
    }


def instance_file(values: dict[str, Any]) -> dict[str, Any]:
    """Return the dagster.yaml that the chart writes for these values."""
    database = values["postgresql"]
    config = {
        "postgres_db": {
            "username": database["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": database["postgresqlHost"],
            "db_name": database["postgresqlDatabase"],
            "port": database["service"]["port"],
            **({"scheme": scheme} if (scheme := database.get("postgresqlScheme")) else {}),
        }
    }
    # Kubernetes' own settings keep their names.
    launcher = snake(values["runLauncher"]["config"]["k8sRunLauncher"], 1)
    for name in launcher.keys() & {"env_config_maps", "env_secrets"}:
        launcher[name] = [entry["name"] for entry in launcher[name]]
    launcher["run_k8s_config"] = snake(launcher["run_k8s_config"], 1)
    daemon = values["dagsterDaemon"]
    return {
        "run_storage": {
            "module": "dagster_postgres.run_storage",
            "class": "PostgresRunStorage",
            "config": config,
        },
        "event_log_storage": {
            "module": "dagster_postgres.event_log",
            "class": "PostgresEventLogStorage",
            "config": config,
        },
        "schedule_storage": {
            "module": "dagster_postgres.schedule_storage",
            "class": "PostgresScheduleStorage",
            "config": config,
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": {
                "load_incluster_config": True,
                "job_namespace": "etl",
                "service_account_name": "etl-dagster",
                "dagster_home": "/opt/dagster/dagster_home",
                "instance_config_map": "etl-dagster-instance",
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                **launcher,
            },
        },
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
        "run_monitoring": snake(daemon["runMonitoring"]),
        "run_retries": snake(daemon["runRetries"]),
        "retention": {
            name: value for name, value in snake(values["retention"]).items() if name != "enabled"
        },
        "compute_logs": {
            "module": "dagster.core.storage.noop_compute_log_manager",
            "class": values["computeLogManager"]["type"],
        },
        "telemetry": values["telemetry"],
        **values["additionalInstanceConfig"],
    }


def validate(values: dict[str, Any], folder: Path) -> None:
    """Validate the instance that the chart writes for these values with Dagster's schemas."""
    written = instance_file(values)
    (folder / "dagster.yaml").write_text(yaml.safe_dump(written))
    dagster_instance_config(str(folder))
    for part, schema in (
        ("run_launcher", K8sRunLauncher.config_type()),  # type: ignore[no-untyped-call]
        ("run_coordinator", QueuedRunCoordinator.config_type()),
    ):
        processed = process_config(schema, written[part]["config"])
        assert processed.success, processed.errors


def test_the_files_are_what_the_generator_writes(root: Path, generator: dict[str, Any]) -> None:
    written = generator["files"]()
    folder = root / "deploy" / "kubernetes"
    assert {path.name for path in folder.glob("*.yaml")} == written.keys()
    for name, text in written.items():
        assert (folder / name).read_text() == text, f"{name}: run deploy/kubernetes/generate.py"
        assert "Validated, not run" in text


def test_the_instance_is_valid_for_dagster(values: dict[str, Any], tmp_path: Path) -> None:
    validate(values, tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "runLauncher.config.k8sRunLauncher.envSecrets",
        "runLauncher.config.k8sRunLauncher.runK8sConfig.jobSpecConfig",
        "dagsterDaemon.runCoordinator.config.customRunCoordinator.config.max_concurrent_runs",
        "dagsterDaemon.runMonitoring.pollIntervalSeconds",
        "dagsterDaemon.runRetries.retryOnAssetOrOpFailure",
        "retention.sensor.purgeAfterDays",
        "additionalInstanceConfig.nux",
    ],
)
def test_a_misspelled_setting_is_refused(path: str, values: dict[str, Any], tmp_path: Path) -> None:
    *parents, name = path.split(".")
    within = values
    for parent in parents:
        within = within[parent]
    within[f"{name}x"] = within.pop(name)
    (misspelled,) = snake({f"{name}x": None})
    with pytest.raises((dg.DagsterInvalidConfigError, AssertionError), match=misspelled):
        validate(values, tmp_path)


def test_the_instance_of_a_cluster_differs_from_a_server_only_where_needed(
    root: Path,
    values: dict[str, Any],
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = postgres.database()
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", address)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "no password is necessary")
    use(values, address)
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance_file(values)))
    with (
        dg.DagsterInstance.from_config(str(root / "deploy")) as server,
        dg.DagsterInstance.from_config(str(tmp_path)) as cluster,
    ):
        for name in ("run_monitoring", "run_retries", "retention", "telemetry", "nux"):
            assert cluster.get_settings(name) == server.get_settings(name) != {}, name
        assert (
            cluster.get_concurrency_config().run_queue_config
            == server.get_concurrency_config().run_queue_config
        )
        assert type(cluster.event_log_storage) is type(server.event_log_storage)


def use(values: dict[str, Any], address: str) -> None:
    """Set a database of the test in the chart's values."""
    url = urlsplit(address)
    values["postgresql"] |= {
        "postgresqlHost": url.hostname,
        "postgresqlUsername": url.username,
        "postgresqlDatabase": url.path[1:],
        "service": {"port": url.port},
    }


def test_each_location_has_a_server_under_its_name(root: Path, values: dict[str, Any]) -> None:
    expected = {
        entry["grpc_server"]["location_name"]: entry["grpc_server"]["port"]
        for entry in yaml.safe_load((root / "deploy" / "workspace.yaml").read_text())["load_from"]
    }
    servers = values["dagsterWebserver"]["workspace"]["servers"]
    assert {server["name"]: server["port"] for server in servers} == expected
    deployments = {
        deployment["name"]: deployment
        for deployment in values["dagster-user-deployments"]["deployments"]
    }
    assert len(deployments) == len(servers) == len(expected)
    for server in servers:
        deployment = deployments[server["host"]]
        assert re.fullmatch("[a-z][a-z0-9-]*", server["host"])  # valid as the name of a service
        assert deployment["port"] == server["port"]
        assert deployment["includeConfigInLaunchedRuns"] == {"enabled": False}
        # The chart starts `dagster api grpc` with these arguments.
        command = grpc_command.make_context("grpc", [*deployment["dagsterApiGrpcArgs"], "-p", "1"])
        assert command.params["module_name"] == code_locations()[server["name"]]
        assert command.params["location_name"] == server["name"]


def test_no_service_is_open_to_the_outside(root: Path, values: dict[str, Any]) -> None:
    assert values["ingress"] == {"enabled": False}
    assert values["dagsterWebserver"]["service"] == {"type": "ClusterIP"}
    (policy,) = (item for item in read(root, "manifests.yaml") if item["kind"] == "NetworkPolicy")
    release = {"matchLabels": {"app.kubernetes.io/instance": "etl"}}
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": release}]}]


@pytest.mark.parametrize("name", ["manifests.yaml", "secrets.example.yaml"])
def test_the_manifests_are_valid_for_kubernetes(name: str, root: Path) -> None:
    for manifest in read(root, name):
        valid(manifest)
        section = next(part for part in ("spec", "data", "stringData") if part in manifest)
        manifest[f"{section}x"] = manifest.pop(section)
        with pytest.raises(kubernetes_validate.ValidationError, match=f"{section}x"):
            valid(manifest)


def test_no_file_has_a_secret(
    root: Path, generator: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read(root, "manifests.yaml")[0]["data"]
    secrets = [secret["stringData"] for secret in read(root, "secrets.example.yaml")]
    assert {value for secret in secrets for value in secret.values()} == {""}
    for name in SETTINGS.keys() - {"DAGSTER_HOME"}:
        monkeypatch.setenv(name, f"the value of {name}")
        is_secret = redact(f"the value of {name}") == "***"
        assert (name in secrets[1], name in config) == (is_secret, not is_secret)
    assert "the value of" not in "".join(generator["files"]().values())


def test_there_is_no_volume_if_no_setting_refers_to_it(generator: dict[str, Any]) -> None:
    files = generator["files"]
    with pytest.raises(ValueError, match=r"WAREHOUSE_PATH is 'data/warehouse.duckdb'"):
        files({"DROP_FOLDER": "s3://bucket/drop"})
    with pytest.raises(ValueError, match=r"DROP_FOLDER is 'data/drop'"):
        files({"WAREHOUSE_PATH": "/data/warehouse.duckdb"})
    with pytest.raises(ValueError, match="has no DROP_FOLDERS"):
        files({"DROP_FOLDERS": "s3://bucket/drop"})
    written = files({"WAREHOUSE_TYPE": "postgres", "DROP_FOLDER": "s3://bucket/drop"})
    assert "PersistentVolumeClaim" not in written["manifests.yaml"]
    assert "olume" not in written["values.yaml"]
    assert "nodeSelector" not in written["values.yaml"]
    assert "DESTINATION__WAREHOUSE__CREDENTIALS" in written["secrets.example.yaml"]


def test_the_executor_accepts_its_run_config(root: Path) -> None:
    (config,) = read(root, "executor.yaml")
    job = dg.Definitions(
        assets=defs.assets, resources=defs.resources, executor=k8s_job_executor
    ).resolve_implicit_global_asset_job_def()
    assert dg.validate_run_config(job, config)["execution"]["k8s"]["max_concurrent"] == 4
    config["execution"]["config"]["max_concurrently"] = 4
    with pytest.raises(dg.DagsterInvalidConfigError, match="max_concurrently"):
        dg.validate_run_config(job, config)


class Cluster:
    """Replaces Kubernetes: accepts Jobs like its API server, and runs their commands on this machine.

    The process of a Job has the environment of our manifests, and a folder as its volume.
    """

    def __init__(self, folder: Path, manifests: list[Manifest]) -> None:
        self.folder = folder
        self.manifests = {(item["kind"], item["metadata"]["name"]): item for item in manifests}
        self.jobs: list[Manifest] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, job: Manifest) -> None:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        environment: dict[str, str] = {}
        for source in container["envFrom"]:
            for kind, part in (("configMap", "data"), ("secret", "stringData")):
                if reference := source.get(f"{kind}Ref"):
                    manifest = self.manifests[kind[0].upper() + kind[1:], reference["name"]]
                    environment |= manifest[part]
        for variable in container["env"]:
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                secret = self.manifests["Secret", reference["name"]]
                assert secret["stringData"][reference["key"]] == ""
                environment[variable["name"]] = "no password is necessary"
            else:
                environment[variable["name"]] = variable["value"]
        (mount,) = container["volumeMounts"]
        volume = str(self.folder / "volume")
        for name, value in environment.items():
            if value.startswith(mount["mountPath"]):
                environment[name] = value.replace(mount["mountPath"], volume)
        program, *arguments = container["args"]
        self.jobs.append(job)
        with (self.folder / "log").open("a") as log:
            self.processes[job["metadata"]["name"]] = subprocess.Popen(
                [python(), str(PROGRAMS / program), *arguments],
                env={**os.environ, **environment},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    @contextmanager
    def listening(self) -> Iterator[Path]:
        """Yield a kubeconfig with the URL of the server."""
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/apis/batch/v1/namespaces/etl/jobs"
                cluster.start(job)
                self.answer(201, job)

            def do_GET(self) -> None:
                name = self.path.removesuffix("/status").rpartition("/")[2]
                code = cluster.processes[name].poll()
                outcome = "active" if code is None else "failed" if code else "succeeded"
                self.answer(200, {"kind": "Job", "status": {outcome: 1}})

            def answer(self, code: int, content: Manifest) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            Thread(target=server.serve_forever).start()
            address = f"http://127.0.0.1:{server.server_port}"
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": address}}],
                "users": [{"name": "test", "user": {}}],
            }
            kubeconfig = self.folder / "kubeconfig"
            kubeconfig.write_text(yaml.safe_dump(config))
            try:
                yield kubeconfig
            finally:
                server.shutdown()
                for process in self.processes.values():
                    process.kill()
                    process.wait(30)


STEP_BY_STEP = """
import dagster as dg
from dagster_k8s import k8s_job_executor
from simple_etl.definitions import defs as simple

defs = dg.Definitions(simple.assets, resources=simple.resources, executor=k8s_job_executor)
"""


@pytest.mark.parametrize("executor", ["in_process_executor", "k8s_job_executor"])
def test_the_jobs_of_a_run_are_valid_for_kubernetes_and_their_commands_load(
    executor: str,
    root: Path,
    values: dict[str, Any],
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = "registry.example.com/embedded-etl:1"
    location = ReconstructableRepository.for_module(
        "simple_etl.definitions", "defs", container_image=image
    )
    config = {}
    if executor == "k8s_job_executor":
        (tmp_path / "location.py").write_text(STEP_BY_STEP)
        location = ReconstructableRepository.for_file(
            str(tmp_path / "location.py"), "defs", container_image=image
        )
        (config,) = read(root, "executor.yaml")
    job = location.get_reconstructable_job("__ASSET_JOB")
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "no password is necessary")
    use(values, postgres.database())
    manifests = [*read(root, "manifests.yaml"), *read(root, "secrets.example.yaml")]
    cluster = Cluster(tmp_path, manifests)
    with cluster.listening() as kubeconfig:
        written = instance_file(values)
        written["run_launcher"]["config"] |= {
            "load_incluster_config": False,
            "kubeconfig_file": str(kubeconfig),
            "dagster_home": str(tmp_path),
        }
        (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(written))
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            run = instance.create_run_for_job(
                job.get_definition(), run_config=config, job_code_origin=job.get_python_origin()
            )
            instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
            cluster.processes[f"dagster-run-{run.run_id}"].wait(120)
            finished = instance.get_run_by_id(run.run_id)
    assert finished
    assert finished.status == dg.DagsterRunStatus.SUCCESS, (tmp_path / "log").read_text()
    with duckdb.connect(str(tmp_path / "volume" / "warehouse.duckdb")) as connection:
        assert connection.execute("SELECT count(*) FROM simple.load_dict").fetchone() == (2,)

    assert len(cluster.jobs) == (2 if executor == "k8s_job_executor" else 1)
    for sent in cluster.jobs:
        valid(sent)
        # The Job of a run has the launcher's settings, and the Job of a step those of its run.
        pod = sent["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
        assert sent["spec"]["ttlSecondsAfterFinished"] == 7 * 24 * 3600
        assert sent["spec"]["backoffLimit"] == 0  # Dagster retries a run, not Kubernetes
        assert container["image"] == image
        assert container["resources"] == launcher["resources"]
        assert container["volumeMounts"] == launcher["volumeMounts"]
        assert pod["volumes"] == launcher["volumes"]
        assert pod["nodeSelector"] == {"etl/volume": "here"}
        (claim,) = (volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"])
        assert ("PersistentVolumeClaim", claim) in cluster.manifests
    with pytest.raises(kubernetes_validate.ValidationError, match="backoffLimits"):
        valid({**sent, "spec": {**sent["spec"], "backoffLimits": 0}})
