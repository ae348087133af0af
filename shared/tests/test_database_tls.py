"""A connection to another machine is encrypted, and the server's certificate is verified."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from shared.sources.database.base import DatabaseError
from shared.sources.database.connection import database_configuration, open_database
from shared.sources.database.tls import tls_advice, with_verified_tls
from shared.sources.database.tunnel import tunneled
from shared.testing.postgres_server import PostgresServer
from shared.testing.sftp_server import SftpServer

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
HOST = "db.example"  # for libpq, `hostaddr` says where it is


@dataclass
class TlsServer:
    """A server with TLS whose certificate nobody has signed, and the file of that certificate."""

    port: int
    certificate: Path

    def url(self, host: str = HOST, **parameters: str) -> str:
        added = {"hostaddr": "127.0.0.1", **parameters}
        query = "&".join(f"{name}={quote(value)}" for name, value in added.items())
        return f"postgresql://postgres@{host}:{self.port}/postgres?{query}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Start Postgres of the operating system, because that of the wheel has no TLS."""
    if not PROGRAMS or not shutil.which("openssl"):
        pytest.skip("Postgres with TLS, such as Debian's package postgresql, or openssl is missing")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-days", "2"]
    files = ["-out", str(certificate), "-keyout", str(key), "-nodes", "-newkey", "rsa:2048"]
    subprocess.run(["openssl", "req", "-x509", *subject, *files], check=True, capture_output=True)
    key.chmod(0o600)
    with PostgresServer(folder, programs=PROGRAMS[-1]) as started:
        started.stop()
        with (started.data / "postgresql.conf").open("a") as settings:
            settings.write(f"ssl=on\nssl_cert_file='{certificate}'\nssl_key_file='{key}'\n")
        started.start()
        yield TlsServer(started.port, certificate)


def by_psycopg2(url: str) -> str:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return str(cursor.fetchall()[0][0])
    finally:
        connection.close()


def by_adbc(url: str) -> str:
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return str(cursor.fetchall()[0][0])


Connect = Callable[[str], str]
both_drivers = pytest.mark.parametrize("connect", [by_psycopg2, by_adbc])


def refusal(connect: Connect, url: str) -> str:
    with pytest.raises((psycopg2.OperationalError, dbapi.Error)) as error:
        connect(with_verified_tls(url))
    return str(error.value)


@both_drivers
def test_a_certificate_of_an_unknown_authority_is_refused(
    server: TlsServer, connect: Connect
) -> None:
    assert connect(server.url()) == "true", "libpq alone accepts any certificate"
    message = refusal(connect, server.url())
    assert "certificate verify failed" in message
    assert "sslrootcert=/path/to/ca.pem" in tls_advice(message)


@both_drivers
def test_a_certificate_of_an_authority_in_the_url_is_accepted(
    server: TlsServer, connect: Connect
) -> None:
    url = with_verified_tls(server.url(sslrootcert=str(server.certificate)))
    assert connect(url) == "true"


@both_drivers
def test_an_authority_of_the_environment_is_accepted(
    server: TlsServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(server.certificate))
    assert connect(with_verified_tls(server.url())) == "true"


@both_drivers
def test_a_certificate_of_another_host_is_refused(server: TlsServer, connect: Connect) -> None:
    url = server.url(host="other.example", sslrootcert=str(server.certificate))
    message = refusal(connect, url)
    assert "does not match host name" in message
    assert "sslmode=verify-ca" in tls_advice(message)
    assert connect(with_verified_tls(f"{url}&sslmode=verify-ca")) == "true"


@both_drivers
def test_a_server_without_tls_is_refused_unless_the_url_says_otherwise(
    warehouse_server: PostgresServer, connect: Connect
) -> None:
    url = f"postgresql://postgres@{HOST}:{warehouse_server.port}/postgres?hostaddr=127.0.0.1"
    message = refusal(connect, url)
    assert "does not support SSL" in message
    assert "sslmode=disable" in tls_advice(message)
    for mode in ("disable", "prefer"):
        assert connect(with_verified_tls(f"{url}&sslmode={mode}")) == "false"


@both_drivers
def test_a_missing_file_of_the_authority_is_named(server: TlsServer, connect: Connect) -> None:
    message = refusal(connect, server.url(sslrootcert="/nowhere/ca.pem"))
    assert "/nowhere/ca.pem" in message
    assert "Check sslrootcert" in tls_advice(message)


def test_a_load_verifies_the_server_and_says_what_to_do(
    server: TlsServer, tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tmp_warehouse
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", server.url())
    name = rf"{HOST}:{server.port}/postgres: .*certificate verify failed.*sslrootcert=/path/to"
    with (
        pytest.raises(DatabaseError, match=name),
        open_database(database_configuration("shop")) as database,
        database.snapshot(),
    ):
        pass
    monkeypatch.setenv(
        "SOURCES__SHOP__CREDENTIALS", server.url(sslrootcert=str(server.certificate))
    )
    with (
        open_database(database_configuration("shop")) as database,
        database.snapshot() as snapshot,
    ):
        own = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert snapshot.query(own) == [("true",)]


@both_drivers
def test_through_a_tunnel_the_certificate_is_of_the_original_host(
    server: TlsServer, connect: Connect, tmp_path: Path
) -> None:
    with SftpServer() as bastion:
        (tmp_path / "known_hosts").write_text(bastion.known_hosts)
        for host, accepted in ((HOST, True), ("other.example", False)):
            url = f"postgresql://postgres@{host}:{server.port}/postgres?sslrootcert={server.certificate}"
            with tunneled(
                url,
                f"ssh://{bastion.user}@127.0.0.1:{bastion.port}",
                known_hosts=tmp_path / "known_hosts",
                password=bastion.password,
            ) as through:
                if accepted:
                    assert connect(through) == "true"
                else:
                    assert "does not match host name" in refusal(connect, through)


@pytest.fixture
def authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the file of authorities of a machine whose user has none for Postgres."""
    file = tmp_path / "authorities.pem"
    file.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLROOTCERT", "PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    return str(file)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40@db.example/shop",
        "postgresql://db.example:5432/shop?application_name=a%20b",
        "postgresql://u@db.example/shop?",
        "postgresql://one.example:1,127.0.0.1:2/shop",
        "postgresql://10.0.0.7/shop",
        "postgresql://[2001:db8::1]:5432/shop",
        "postgresql:///shop?host=db.example",
        "postgresql:///shop?hostaddr=10.0.0.7",
        "postgresql:///shop?service=prod",
        "postgresql://localhost.example/shop",
    ],
)
def test_another_machine_is_verified(authorities: str, url: str) -> None:
    verified = with_verified_tls(url)
    added = verified.removeprefix(url).lstrip("?&")
    assert added == f"sslmode=verify-full&sslrootcert={authorities}"
    assert verified.count("?") == 1
    assert with_verified_tls(verified) == verified


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///shop",
        "postgresql://u:p@localhost:5432/shop",
        "postgresql://127.0.0.1,[::1]/shop?a=b",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/shop",
        "postgresql://u@/shop?host=/var/run/postgresql",
        "postgresql://db.example/shop?sslmode=disable",
        "postgresql://db.example/shop?sslmode=require",
        "mysql+pymysql://db.example/shop",
        "sqlite:///shop.db",
    ],
)
def test_this_machine_and_what_the_url_states_stay_as_they_are(authorities: str, url: str) -> None:
    assert authorities
    assert with_verified_tls(url) == url


def test_a_url_is_written_as_libpq_reads_it() -> None:
    assert with_verified_tls("postgres+psycopg2://u:a b+c@localhost/shop?options=-c+x%2By") == (
        "postgresql://u:a%20b+c@localhost/shop?options=-c%20x%2By"
    )


def test_a_sign_of_a_password_hides_no_parameter(authorities: str) -> None:
    assert with_verified_tls("postgresql://u:p#1@db.example/shop?sslmode=disable").endswith(
        "sslmode=disable"
    )
    assert with_verified_tls("postgresql://u:p#1@db.example/shop").endswith(
        f"@db.example/shop?sslmode=verify-full&sslrootcert={authorities}"
    )


def test_the_place_of_the_server_may_be_in_the_environment(
    authorities: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    assert authorities in with_verified_tls("postgresql:///shop")
    assert with_verified_tls("postgresql://localhost/shop") == "postgresql://localhost/shop"


def test_an_authority_that_libpq_finds_is_not_replaced(
    authorities: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://db.example/shop"
    stated = f"{url}?sslmode=verify-full"
    assert with_verified_tls(stated) == f"{stated}&sslrootcert={authorities}"
    monkeypatch.setenv("PGSSLROOTCERT", "own.pem")
    assert with_verified_tls(url) == f"{url}?sslmode=verify-full"
    monkeypatch.delenv("PGSSLROOTCERT")
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_text("")
    assert with_verified_tls(url) == f"{url}?sslmode=verify-full"


def test_without_authorities_of_the_machine_those_of_requests_are_trusted(
    authorities: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert authorities
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
    file = Path(with_verified_tls("postgresql://db.example/shop").rpartition("sslrootcert=")[2])
    assert "BEGIN CERTIFICATE" in file.read_text()
