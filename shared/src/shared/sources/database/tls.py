"""Encrypted connections to databases: a server's certificate is verified unless the URL says otherwise.

A URL of Postgres that states no `sslmode` gets `sslmode=verify-full`, which libpq does not do by default.
The authorities are those of the operating system; `sslrootcert=/path/to/ca.pem` in the URL names others,
and `sslmode=disable` or `prefer` turns the verification off. Loopback and Unix sockets stay as they are.

Other databases verify by parameters of their drivers: `ssl_ca=/path/to/ca.pem` together with
`ssl_verify_cert=true&ssl_verify_identity=true` of MySQL with PyMySQL, `Encrypt=yes` of SQL Server with
ODBC. SQLite has no network.
"""

import os
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

_ADVICE = {
    "certificate verify failed": "This machine does not trust the server's certificate. Ask who runs the "
    "server for the certificate of its authority, and add sslrootcert=/path/to/ca.pem to the URL.",
    "does not match host name": "Write the host name of the certificate into the URL. If it has none, "
    "sslmode=verify-ca in the URL still verifies who signed it.",
    "does not support SSL": "Connections to other machines must be encrypted. Turn TLS on in the server; "
    "in a network that you trust, add sslmode=disable to the URL.",
    "host name must be specified": "Write the host name of the server's certificate into the URL; the "
    "address may be in hostaddr.",
    "root certificate file": "Check sslrootcert in the URL; it is the file of the authority's certificate.",
}
"""The next step, by a part of libpq's message."""


def with_verified_tls(url: str) -> str:
    """Return the URL of a database with parameters that verify the server's certificate.

    A URL that states `sslmode`, or whose server is on this machine, and one of another database than
    Postgres gets no parameters. A `service` of libpq counts as another machine.

    Args:
        url: as dlt has it, such as `postgresql://user:password@host/database?sslrootcert=/path/to/ca.pem`.
    """
    if not url.startswith("postgres"):
        return url
    url = _as_libpq_reads(url)
    parts = urlsplit(url)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    mode = parameters.get("sslmode")
    if mode not in (None, "verify-ca", "verify-full"):
        return url
    if mode is None and all(map(_is_local, _hosts(url))):
        return url
    added = {} if mode else {"sslmode": "verify-full"}
    default_file = Path.home() / ".postgresql" / "root.crt"  # where libpq looks
    if not (
        parameters.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or default_file.exists()
    ):
        added["sslrootcert"] = _authorities()
    return with_parameters(url, **added)


def tls_advice(message: str) -> str:
    """Return the next step for an error of libpq about TLS, or an empty text for another error."""
    return next((advice for part, advice in _ADVICE.items() if part in message), "")


def with_parameters(url: str, **parameters: str) -> str:
    """Return a URL with more parameters; the rest of its text is unchanged.

    `urlencode` would write a space as `+`, which libpq does not decode.
    """
    added = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
    separator = "?" if "?" not in url else "" if url.endswith(("?", "&")) else "&"
    return url + separator + added if added else url


def _as_libpq_reads(url: str) -> str:
    """Return a URL without a driver, and as libpq decodes it.

    dlt writes URLs as SQLAlchemy does: with a space in a password, and with `+` for one in a parameter.
    libpq accepts no space and decodes no `+`; a `#` is a sign like others.
    """
    place, mark, parameters = url.partition("://")[2].replace("#", "%23").partition("?")
    return f"postgresql://{place.replace(' ', '%20')}{mark}{parameters.replace('+', '%20')}"


def _authorities() -> str:
    """Return a file with the certificates of the authorities that this machine trusts.

    `sslrootcert=system` would ask OpenSSL, and in psycopg2's wheel that looks into a folder which exists
    only where the wheel was built.
    """
    return ssl.get_default_verify_paths().cafile or DEFAULT_CA_BUNDLE_PATH


def _hosts(url: str) -> Iterator[str]:
    """Yield the hosts of a URL of libpq: there may be several, and none is a Unix socket."""
    parts = urlsplit(url)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parameters.get("service") or os.environ.get("PGSERVICE"):
        yield "service"
    in_url = [
        unquote(host).rpartition("]")[0].lstrip("[") or unquote(host).partition(":")[0]
        for host in parts.netloc.rpartition("@")[2].split(",")
    ]
    in_query = [parameters[name] for name in ("host", "hostaddr") if parameters.get(name)]
    from_environment = [os.environ.get("PGHOST", ""), os.environ.get("PGHOSTADDR", "")]
    given = [*filter(None, in_url), *(host for text in in_query for host in text.split(","))]
    yield from given or from_environment


def _is_local(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
