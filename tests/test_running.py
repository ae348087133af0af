"""The files in `deploy/`: systemd units, containers, and the proxy for the UI."""

import json
import os
import re
import shutil
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests
import yaml
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from gql.transport.requests import RequestsHTTPTransport
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from shared import settings
from shared.cli.locations import code_locations
from support.graphql import LaunchError
from support.processes import PROGRAMS, free_port, python
from support.servers import Webserver, query_postgres

VARIABLE = re.compile(r"(?<!\$)\$\{?(\w+)")


@pytest.fixture
def deploy(root: Path) -> Path:
    """The folder with the files of a server."""
    return root / "deploy"


def addresses(workspace: Path) -> dict[str, tuple[str, int]]:
    """Return the address of each location in a workspace file."""
    listed = [entry["grpc_server"] for entry in yaml.safe_load(workspace.read_text())["load_from"]]
    return {entry["location_name"]: (entry["host"], entry["port"]) for entry in listed}


def variables(file: Path) -> dict[str, str]:
    """Return the variables that a file sets."""
    lines = file.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def containers(deploy: Path) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]
    return services


def commands(unit: Path) -> list[str]:
    return re.findall(r"^ExecStart=(.*)", unit.read_text(), re.MULTILINE)


def test_each_deployed_location_has_exactly_one_unit_and_one_container(
    deploy: Path,
) -> None:
    locations = addresses(deploy / "workspace.yaml")
    assert locations.keys() <= code_locations().keys()
    units = {file.stem: variables(file) for file in (deploy / "systemd").glob("*_etl.env")}
    assert {name: (its["HOST"], int(its["PORT"])) for name, its in units.items()} == locations
    by_name = {name: (name, port) for name, (_, port) in locations.items()}
    assert addresses(deploy / "workspace.compose.yaml") == by_name

    services = containers(deploy)
    assert services.keys() == {"postgres", "webserver", "daemon", "metrics", *locations}
    (unit,) = commands(deploy / "systemd" / "embedded-etl-location@.service")
    _, command = unit.split("/bin/")
    for name, (_, port) in locations.items():
        expected = command.replace("%i", name).replace("${PORT}", str(port))
        # A container has its own address, which only containers of its network can reach.
        assert services[name]["command"] == expected.replace("${HOST}", "0.0.0.0")
        assert services[name]["build"]["args"] == {"LOCATION": name}


def test_there_is_one_daemon(deploy: Path) -> None:
    units = [command for unit in deploy.glob("systemd/*.service") for command in commands(unit)]
    assert sum("dagster-daemon" in command for command in units) == 1
    started = [service.get("command", "") for service in containers(deploy).values()]
    assert sum("dagster-daemon" in command for command in started) == 1


def test_no_port_can_be_reached_from_another_machine(deploy: Path) -> None:
    (webserver,) = commands(deploy / "systemd" / "embedded-etl-webserver.service")
    assert " -h 127.0.0.1 " in webserver
    assert {host for host, _ in addresses(deploy / "workspace.yaml").values()} == {"127.0.0.1"}
    services = containers(deploy)
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:3000:3000", "127.0.0.1:9464:9464"]
    assert not any("network_mode" in service for service in services.values())


def test_every_variable_is_set_somewhere(deploy: Path) -> None:
    for file in deploy.glob("systemd/*.service"):
        used = set(VARIABLE.findall(" ".join(commands(file))))
        assert used <= ({"HOST", "PORT"} if "@" in file.name else set())
    compose = (deploy / "compose.yaml").read_text()
    assert set(VARIABLE.findall(compose)) == variables(deploy / ".env.example").keys()
    instance = set(re.findall(r"env: (\w+)", (deploy / "dagster.yaml").read_text()))
    assert {*instance, "ETL_ENVIRONMENT"} == variables(deploy / "systemd" / "server.env").keys()
    assert all(name in compose for name in instance)
    for file in deploy.glob("systemd/*.env"):
        assert variables(file).keys() <= {"HOST", "PORT", *instance, *settings.SETTINGS}


def test_systemd_accepts_the_units_and_their_security_settings(
    deploy: Path, tmp_path: Path
) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("the units are checked with systemd-analyze: apt-get install systemd")
    for file in (path for path in (deploy / "systemd").rglob("*") if path.is_file()):
        copy = tmp_path / file.relative_to(deploy / "systemd")
        copy.parent.mkdir(exist_ok=True)
        # The programs are not installed on this machine; `true` replaces them.
        copy.write_text(re.sub(r"/opt/embedded-etl/\S+", "/bin/true", file.read_text()))
    location = tmp_path / "embedded-etl-location@.service"
    units = [str(unit) for unit in tmp_path.glob("*.service") if unit != location]
    units += [str(location).replace("@", f"@{name}") for name in code_locations()]
    paths = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    for command in (["verify"], ["security", "--offline=yes", "--threshold=25"]):
        checked = subprocess.run(
            ["systemd-analyze", *command, *units],
            env=paths,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


def test_docker_compose_accepts_the_containers(deploy: Path) -> None:
    for command in (["docker", "compose"], ["docker-compose"]):
        is_installed = (
            shutil.which(command[0])
            and not subprocess.run(
                [*command, "version"], capture_output=True, check=False
            ).returncode
        )
        if is_installed:
            break
    else:
        pytest.skip("docker compose is not installed: apt-get install docker-compose")
    options = ["-f", str(deploy / "compose.yaml"), "config"]
    minimal = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    refused = subprocess.run(
        [*command, *options], env=minimal, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "POSTGRES_PASSWORD" in refused.stderr
    read = subprocess.run(
        [*command, *options],
        env={**minimal, "POSTGRES_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        check=True,
    )
    services = yaml.safe_load(read.stdout)["services"]
    assert services.keys() == containers(deploy).keys()
    address = "postgresql+psycopg2://dagster:secret@postgres:5432/dagster"
    for name, service in services.items():
        if name != "postgres":
            assert service["environment"]["DAGSTER_POSTGRES_URL"] == address
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
        # Only the location that needs a key has it.
        assert ("NASA_API_KEY" in service["environment"]) == (name == "api_etl")


@pytest.mark.parametrize("location", ["", *code_locations()])
def test_what_an_image_installs_is_in_the_lock(root: Path, location: str, tmp_path: Path) -> None:
    text = (root / "deploy" / "Dockerfile").read_text()
    (installs,) = [
        line.strip()
        for line in text.splitlines()
        if "uv sync" in line and ("$LOCATION" in line) == bool(location)
    ]
    command = installs.replace("uv sync", f"{os.environ['UV']} sync --dry-run")  # uv run sets it
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=root,
        env={
            **os.environ,
            "LOCATION": location,
            "EXTRA": "kubernetes",  # as a delivery sets it
            "UV_PROJECT_ENVIRONMENT": str(tmp_path / "none"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    installed = set(re.findall(r"^ \+ ([\w-]+)==|^ \+ ([\w-]+) @", done.stderr, re.MULTILINE))
    names = {first or second for first, second in installed}
    members = {name.replace("_", "-") for name in code_locations()}
    assert names & members == ({location.replace("_", "-")} if location else set())
    assert {"dagster-postgres", "shared"} <= names
    assert ("dagster-webserver" in names) == (not location)
    assert ("dagster-k8s" in names) == bool(location)
    assert not {"pytest", "mypy", "ruff"} & names


class UnitProcess(Webserver):
    """A unit's own command, with this environment's programs and a free port."""

    def __init__(
        self, unit: Path, folder: Path, settings: dict[str, str], *options: str, name: str = ""
    ) -> None:
        super().__init__(folder, settings, folder / f"{unit.stem}.log")
        (command,) = commands(unit)
        command = re.sub(r"/opt/embedded-etl/\S+/bin", str(PROGRAMS), command)
        command = re.sub(r"-h \S+ -p \S+", f"-h 127.0.0.1 -p {self.port}", command)
        command = command.replace("/etc/embedded-etl", str(folder)).replace("%i", name)
        self.command = [python(), *command.split(), *options]


@pytest.fixture
def start(
    deploy: Path, server_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., UnitProcess]]:
    """Start a unit, with more options; for the webserver wait until its location is loaded."""
    with ExitStack() as servers:

        def start_unit(unit: str, *options: str, name: str = "") -> UnitProcess:
            file = deploy / "systemd" / f"embedded-etl-{unit}.service"
            server = UnitProcess(file, tmp_path, server_environment, *options, name=name)
            servers.enter_context(server)
            if unit == "webserver":
                server.wait_for(lambda: server.loaded_locations() == {"simple_etl"})
            return server

        yield start_unit


@pytest.fixture
def location(start: Callable[..., UnitProcess], tmp_path: Path) -> UnitProcess:
    """The server of a location, with a workspace file that lists it."""
    server = start("location@", name="simple_etl")
    entry = {"host": "127.0.0.1", "port": server.port, "location_name": "simple_etl"}
    workspace = yaml.safe_dump({"load_from": [{"grpc_server": entry}]})
    (tmp_path / "workspace.yaml").write_text(workspace)
    return server


def launch_through_proxy(address: str, **options: Any) -> str:
    """Launch simple_etl's assets with the options of `requests` and return the run's id."""
    transport = RequestsHTTPTransport(f"{address}/graphql", use_json=True, timeout=60, **options)
    client = DagsterGraphQLClient("127.0.0.1", transport=transport)
    return client.submit_job_execution("__ASSET_JOB", "simple_etl", "__repository__")


@contextmanager
def proxy(deploy: Path, folder: Path, upstream: int, name: str, password: str) -> Iterator[int]:
    """Run nginx with the shipped site, and a certificate and a user for this test."""
    port = free_port()
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run([*openssl, *names, *files], check=True, capture_output=True)
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"],
        input=password,
        capture_output=True,
        text=True,
        check=True,
    )
    (folder / "users").write_text(f"{name}:{hashed.stdout}")
    site = (deploy / "proxy" / "nginx.conf").read_text()
    for shipped, replacement in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "http://127.0.0.1:3000": f"http://127.0.0.1:{upstream}",
        "/etc/ssl/certs/embedded-etl.pem;": f"{folder / 'certificate'};",
        "/etc/ssl/private/embedded-etl.key;": f"{folder / 'key'};",
        "/etc/nginx/embedded-etl.htpasswd;": f"{folder / 'users'};",
    }.items():
        assert site.count(shipped) == 1, shipped
        site = site.replace(shipped, replacement)
    temporary = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # the owner of the test's folder
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder / 'nginx.pid'}; events {{}}\n"
        f"http {{ access_log off;\n{temporary}{site} }}\n"
    )
    command = ["nginx", "-e", str(folder / "nginx.log"), "-c", str(folder / "nginx.conf")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    running = subprocess.Popen(command)
    try:
        yield port
    finally:
        running.terminate()
        running.wait(30)


def test_the_proxy_requires_a_password_and_passes_pages_queries_and_websockets(
    deploy: Path, location: UnitProcess, start: Callable[..., UnitProcess], tmp_path: Path
) -> None:
    if not shutil.which("nginx"):
        pytest.skip("the proxy is nginx: apt-get install nginx")
    server = start("webserver")
    with proxy(deploy, tmp_path, server.port, "ada", "a long password") as port:
        address, trusted = f"https://127.0.0.1:{port}", str(tmp_path / "certificate")
        login: dict[str, Any] = {"auth": ("ada", "a long password"), "verify": trusted}

        def page(**options: Any) -> requests.Response:
            return requests.get(address, timeout=60, **options)

        assert server.wait_for(lambda: page(verify=trusted).status_code) == 401
        assert page(verify=trusted, auth=("ada", "a guess")).status_code == 401
        assert page(**login).status_code == 200
        assert page(**login).text.startswith("<!DOCTYPE html>")
        with pytest.raises(DagsterGraphQLClientError, match="401"):
            launch_through_proxy(address, verify=trusted)
        assert launch_through_proxy(address, **login)

        # The UI watches runs over a websocket.
        header = {"Authorization": f"Basic {b64encode(b'ada:a long password').decode()}"}
        watch = partial(
            connect,
            f"wss://127.0.0.1:{port}/graphql",
            ssl=ssl.create_default_context(cafile=trusted),
            subprotocols=[Subprotocol("graphql-ws")],
        )
        with pytest.raises(InvalidStatus, match="401"):
            watch()
        with watch(additional_headers=header) as opened:
            opened.send(json.dumps({"type": "connection_init"}))
            assert json.loads(opened.recv(timeout=60))["type"] == "connection_ack"


def test_a_read_only_webserver_launches_no_run(
    location: UnitProcess, start: Callable[..., UnitProcess]
) -> None:
    server = start("webserver", "--read-only")
    with pytest.raises(LaunchError, match="UnauthorizedError"):
        server.api.launch("simple_etl")


def test_a_run_goes_on_while_its_location_restarts(
    deploy: Path,
    location: UnitProcess,
    start: Callable[..., UnitProcess],
    server_environment: dict[str, str],
) -> None:
    unit = (deploy / "systemd" / "embedded-etl-location@.service").read_text()
    assert "\nKillMode=process\n" in unit  # systemd kills the server, not its runs
    server = start("webserver")
    start("daemon")
    with duckdb.connect(server_environment["WAREHOUSE_PATH"]):  # the run waits for this lock
        run = server.api.launch("simple_etl")
        waiting = f"""SELECT 1 FROM event_logs
            WHERE run_id = '{run}' AND event LIKE '%Waiting for the warehouse%'"""
        server.wait_for(lambda: query_postgres(server_environment, waiting))
        location.process.kill()
        location.process.wait()
        restarted = start("location@", "-p", str(location.port), name="simple_etl")
    assert server.final_status(run) == "SUCCESS"
    assert restarted.process.poll() is None
