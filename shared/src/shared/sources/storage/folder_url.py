"""The URL of a folder on a server, and the password for it, which is never part of the URL."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from shared import settings
from shared.sources.storage.base import InvalidFileError


def shown_url(url: str) -> str:
    """Return a URL without what may be a secret: its password, query and fragment; a path unchanged."""
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("#")[0].partition("?")[0].partition("/")
    login, at, host = netloc.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}{at}{host}{slash}{path}"


def require_no_password(url: str) -> None:
    """Raise `InvalidFileError` if a URL has a password."""
    try:
        has_password = "://" in url and urlsplit(url).password is not None
    except ValueError:
        has_password = True  # it cannot be known
    if has_password:
        raise InvalidFileError(
            f"{shown_url(url)}: a URL must have no password, because it appears in logs; remove it, and "
            "set DROP_FOLDER_PASSWORD, or add the server to ~/.netrc"
        )


@dataclass(frozen=True)
class FolderUrl:
    """The parts of the URL of a folder on a server; `shown` is the URL for messages."""

    shown: str
    scheme: str
    host: str
    port: int | None
    user: str | None
    path: str

    @classmethod
    def parse(cls, url: str) -> "FolderUrl":
        """Return the parts of a URL.

        Raises:
            InvalidFileError: it has a password, a query or a fragment, or it is not valid. The message
                has none of them.
        """
        require_no_password(url)
        shown = shown_url(url).rstrip("/")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # its message has a part of the URL, maybe of a password
            host, port = None, None
        # With an unescaped / in a password, a part of it is where the port or the path is.
        login, _, path = url.partition("://")[2].partition("/")
        if not host or (":" in login and "@" not in login and "@" in path):
            raise InvalidFileError(
                f"The URL of the folder is not valid; write {url.partition('://')[0]}://host/folder, "
                "and %40 for an @ of a name"
            )
        if "?" in url or "#" in url:
            raise InvalidFileError(
                f"{shown}: the URL of a folder must have no ? and no #, because a query may be a key, "
                "and URLs appear in logs; write %3F or %23 for signs of a name, and set "
                "DROP_FOLDER_TOKEN for a key"
            )
        return cls(shown, parts.scheme, host, port, parts.username, parts.path.rstrip("/"))

    @property
    def address(self) -> str:
        """Return the URL without the user."""
        scheme, _, rest = self.shown.partition("://")
        netloc, slash, path = rest.partition("/")
        return f"{scheme}://{netloc.rpartition('@')[2]}{slash}{path}"

    def password(self) -> str | None:
        """Return the password for the URL's user.

        It is `DROP_FOLDER_PASSWORD` if the drop folder is on the same server, so that no other server
        gets it, or else that of the server in `~/.netrc` or in the file in `NETRC`.
        """
        if self._is_on_server_of_drop_folder() and (password := _secret("DROP_FOLDER_PASSWORD")):
            return password
        from requests.utils import get_netrc_auth  # on use: most folders are local

        login, password = get_netrc_auth(self.address) or (None, None)
        return password if self.user in (None, login) else None

    def token(self) -> str | None:
        """Return `DROP_FOLDER_TOKEN` if the drop folder is on the same server."""
        return _secret("DROP_FOLDER_TOKEN") if self._is_on_server_of_drop_folder() else None

    def _is_on_server_of_drop_folder(self) -> bool:
        drop_folder = settings.drop_folder()
        return "://" in drop_folder and _server(drop_folder) == _server(self.shown)


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(shown_url(url))
    return parts.scheme, parts.netloc


def _secret(name: str) -> str | None:
    return settings.get(name).strip() or None  # a line break from a file is no part of it
