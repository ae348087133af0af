"""Locations on separate hosts: each host is a network namespace with its own address."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

import duckdb
import psycopg2
import pytest
import yaml

from shared.testing.postgres_server import PostgresServer
from support.graphql import LaunchError
from support.servers import Daemon, Webserver, query_postgres

pytestmark = pytest.mark.slow  # runs each server in its own network namespace

NETWORK_NAMESPACE = 0x40000000  # CLONE_NEWNET; Python has os.setns from 3.12 on
ASSETS = {"simple_etl": ["simple", "load_dict"], "csv_etl": ["csv_data", "import_file"]}


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


class Host:
    """A network namespace while entered as a context; at the end its processes are killed."""

    def __init__(self, address: str) -> None:
        self.address, self.name = address, f"etl-{uuid4().hex[:8]}"
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        while processes := ip("netns", "pids", self.name).split():
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            for started in self.started:
                started.wait()
        ip("netns", "delete", self.name)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move the calling thread, and the processes that it starts, to this host."""
        enter = ctypes.CDLL(None, use_errno=True).setns
        with (
            Path("/proc/thread-self/ns/net").open() as outside,
            Path("/run/netns", self.name).open() as namespace,
        ):
            assert enter(namespace.fileno(), NETWORK_NAMESPACE) == 0, os.strerror(
                ctypes.get_errno()
            )
            try:
                yield
            finally:
                enter(outside.fileno(), NETWORK_NAMESPACE)

    def start(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        """Start a program on this host."""
        with self.inside(), (folder / "log").open("a") as log:
            self.started.append(
                subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            )


class Network:
    """A host with a network switch for other hosts, each on a cable that can be disconnected."""

    def __init__(self, server: Host) -> None:
        self.server, self.hosts = server, dict[str, Host]()
        ip("-n", server.name, "link", "add", "switch", "up", "type", "bridge")
        ip("-n", server.name, "address", "add", f"{server.address}/24", "dev", "switch")

    def connect(self, name: str, host: Host) -> None:
        """Connect a host by a cable, which has the host's name on the switch."""
        self.hosts[name] = host
        other_end = ["peer", "name", "cable", "netns", host.name]
        ip("-n", self.server.name, "link", "add", name, "type", "veth", *other_end)
        ip("-n", self.server.name, "link", "set", name, "master", "switch", "up")
        ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "cable")
        ip("-n", host.name, "link", "set", "cable", "up")

    def disconnect(self, name: str) -> None:
        """Disconnect a host; the flush makes it unreachable at once, not after half a minute."""
        ip("-n", self.server.name, "link", "set", name, "down")
        ip("-n", self.server.name, "neighbour", "flush", "dev", "switch")

    def reconnect(self, name: str) -> None:
        """Connect a host again."""
        ip("-n", self.server.name, "link", "set", name, "up")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """A server and the hosts of its locations; they reach no other network."""
    if not shutil.which("ip"):
        pytest.skip("network namespaces need the command ip: apt-get install iproute2")
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    if os.geteuid() != 0 or probe.returncode:
        pytest.skip(f"network namespaces need root and support by the kernel: {probe.stderr!r}")
    monkeypatch.delenv("PRELOADED_PYTHON", raising=False)  # it starts processes on this host
    with ExitStack() as hosts:
        created = Network(hosts.enter_context(Host("10.77.0.1")))
        for number, name in enumerate(ASSETS, start=2):
            created.connect(name, hosts.enter_context(Host(f"10.77.0.{number}")))
        yield created


UNFINISHED_SQL = "SELECT run_id FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"


class Deployment:
    """Postgres and the webserver on the server, each location on its own host."""

    def __init__(
        self, root: Path, network: Network, folder: Path, environment: dict[str, str]
    ) -> None:
        self.network, self.folder = network, folder
        self.postgres = PostgresServer(folder, network.server.address)
        home = Path(environment["DAGSTER_HOME"])
        instance = (root / "deploy" / "dagster.yaml").read_text()
        delay = "user_code_failure_retry_delay: "
        assert instance.count(f"{delay}60") == 1
        (home / "dagster.yaml").write_text(instance.replace(f"{delay}60", f"{delay}1"))
        workspace = yaml.safe_load((root / "deploy" / "workspace.yaml").read_text())
        self.entries = {
            entry["grpc_server"]["location_name"]: entry["grpc_server"]
            for entry in workspace["load_from"]
            if entry["grpc_server"]["location_name"] in network.hosts
        }
        for name, entry in self.entries.items():
            entry["host"] = network.hosts[name].address
        text = yaml.safe_dump({"load_from": [{"grpc_server": e} for e in self.entries.values()]})
        (folder / "workspace.yaml").write_text(text)
        self.environment = environment
        self.drop = str(root / "data" / "drop")
        self.web = Webserver(folder, environment, folder / "webserver.log")

    def daemon(self) -> Daemon:
        return Daemon(self.folder, self.environment, self.folder / "daemon.log")

    def start_location(self, name: str) -> None:
        """Start a location's server on its host, which has no instance file and its own folder."""
        host, entry = self.network.hosts[name], self.entries[name]
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        address = self.environment["DAGSTER_POSTGRES_URL"]
        environment = {
            **self.environment,
            "DAGSTER_POSTGRES_URL": address.replace("127.0.0.1", self.network.server.address),
            "DROP_FOLDER": self.drop,
            "WAREHOUSE_PATH": str(self.warehouse(name)),
        }
        del environment["DAGSTER_HOME"]
        server = ["-m", "dagster", "api", "grpc", "-m", f"{name}.definitions"]
        place = ["-h", host.address, "-p", str(entry["port"]), "--location-name", name]
        host.start([sys.executable, *server, *place], folder, environment)

    def warehouse(self, name: str) -> Path:
        return self.folder / name / "warehouse.duckdb"

    def run(self, name: str) -> str:
        """Launch a location's asset and return the run's id."""
        return self.web.api.launch(name, ASSETS[name])

    def refusal(self, name: str) -> str:
        """Return the message of Dagster if it refuses to launch a location's asset."""
        try:
            self.run(name)
        except LaunchError as error:
            return str(error)
        return ""

    def errors(self) -> dict[str, str]:
        """Return the locations that are not loaded, with the reason that the UI shows."""
        errors = self.web.api.load_errors().items()
        return {name: error for name, error in errors if error is not None}

    def execute(self, sql: str) -> None:
        address = self.environment["DAGSTER_POSTGRES_URL"].replace("+psycopg2", "")
        with closing(psycopg2.connect(address)) as connection:
            connection.autocommit = True
            connection.cursor().execute(sql)

    def status(self, run: str) -> str:
        return self.web.api.status(run)

    def has_event(self, run: str, text: str) -> bool:
        """Return whether an event of a run contains a text."""
        sql = f"SELECT event FROM event_logs WHERE run_id = '{run}'"
        return any(text in event for (event,) in query_postgres(self.environment, sql))


@pytest.fixture
def deployment(
    root: Path, network: Network, tmp_path: Path, process_environment: dict[str, str]
) -> Iterator[Deployment]:
    """A server and the hosts of its locations, all of them loaded."""
    created = Deployment(root, network, tmp_path, process_environment)
    with network.server.inside(), created.postgres:
        created.environment["DAGSTER_POSTGRES_URL"] = created.postgres.database()
        for name in created.entries:
            created.start_location(name)
        with created.web:
            created.web.wait_for(lambda: created.errors() == {})
            yield created


def test_a_disconnected_host_affects_no_other_and_continues_after_reconnection(
    deployment: Deployment, network: Network
) -> None:
    web, environment = deployment.web, deployment.environment
    with deployment.daemon():
        # A run is executed on its location's host: Postgres sees where its events come from.
        deployment.execute(
            "ALTER TABLE event_logs ADD COLUMN sent_from text DEFAULT host(inet_client_addr())"
        )
        launched = {name: deployment.run(name) for name in ASSETS}
        for name, run in launched.items():
            assert web.final_status(run) == "SUCCESS"
            sql = f"""SELECT sent_from FROM event_logs WHERE run_id = '{run}'
                AND dagster_event_type IN ('PIPELINE_START', 'ASSET_MATERIALIZATION')"""
            assert query_postgres(environment, sql) == [(network.hosts[name].address,)] * 2

        # When simple_etl's host is disconnected, one run is in progress and one is queued.
        lock_owner = duckdb.connect(str(deployment.warehouse("simple_etl")))
        in_progress = deployment.run("simple_etl")
        web.wait_for(lambda: deployment.has_event(in_progress, "Waiting for the warehouse"))
    queued = deployment.run("simple_etl")
    network.disconnect("simple_etl")
    with deployment.daemon():
        # The others go on, and the errors have the location's name or address.
        first = deployment.run("csv_etl")
        refused = deployment.refusal("simple_etl")
        assert "Could not reach user code server" in refused
        assert "10.77.0.2:4001" in refused or "simple_etl" in refused
        web.wait_for(lambda: deployment.has_event(queued, "Could not reach user code server"))
        web.wait_for(lambda: deployment.errors().keys() == {"simple_etl"})
        assert "Could not reach user code server" in deployment.errors()["simple_etl"]
        second = deployment.run("csv_etl")
        assert {web.final_status(first), web.final_status(second)} == {"SUCCESS"}
        assert deployment.status(in_progress) == "STARTED"
        assert deployment.status(queued) in {"QUEUED", "STARTING"}

        # The location is loaded without a manual reload, and no run is lost.
        network.reconnect("simple_etl")
        lock_owner.close()
        web.wait_for(lambda: deployment.errors() == {})
        # A gRPC channel repeats its last error for a short time after its host is back.
        web.wait_for(lambda: not deployment.refusal("simple_etl"))
        assert {web.final_status(run) for run in (in_progress, queued)} == {"SUCCESS"}
        web.wait_for(lambda: not query_postgres(environment, UNFINISHED_SQL))
    statuses = query_postgres(environment, "SELECT status, count(*) FROM runs GROUP BY status")
    assert statuses == [("SUCCESS", 7)]
