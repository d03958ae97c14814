"""Server URLs, parsed in the same way for the broker and the result store.

Kombu and Celery accept different spellings and misread the others: a socket's path as a database,
a Sentinel as a Redis server. This module normalizes a URL to a form that both read alike, or
rejects it.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from kombu.utils.imports import symbol_by_name
from redis.credentials import CredentialProvider

from celery_streams.errors import UnknownServer

#: Accepted URL schemes, mapped to kombu's and Celery's. Valkey speaks the Redis protocol.
SCHEMES = {
    **dict.fromkeys(("redis", "valkey"), "redis"),
    **dict.fromkeys(("rediss", "valkeys"), "rediss"),
    **dict.fromkeys(("socket", "unix", "redis+socket", "redis+unix"), "socket"),
}
#: Query options: the database number, as kombu and as redis-py name it, and those of TLS.
_DATABASE = ("virtual_host", "db")
_TLS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_CERT_REQS = ("required", "optional", "none")
#: Options of redis-py's connections whose value is in seconds.
_SECONDS = ("socket_timeout", "socket_connect_timeout", "health_check_interval")
_PROVIDER = "credential_provider"
_OPTIONS = (*_DATABASE, *_TLS, *_SECONDS, _PROVIDER, "client_name")


#: Makes the error of an invalid URL from a description of the fault.
MakeError = Callable[[str], UnknownServer]


class Address(NamedTuple):
    """The parts of a server's URL."""

    scheme: str
    #: User and password, URL-encoded, including the `@`; empty if the URL has neither.
    login: str
    #: Host and port, or the path of a socket.
    place: str
    database: int
    options: dict[str, str]

    @property
    def url(self) -> str:
        """The normalized URL, which kombu's `parse_url` and Celery's result store read alike."""
        options = dict(self.options)
        path = f"/{self.database}"
        if self.scheme == "socket":
            options, path = {"virtual_host": str(self.database), **options}, ""
        query = f"?{urlencode(options)}" if options else ""
        return f"{self.scheme}://{self.login}{self.place}{path}{query}"

    @property
    def user(self) -> str:
        """The user's name; empty if the URL has none."""
        return unquote(self.login.removesuffix("@").partition(":")[0])

    @property
    def has_password(self) -> bool:
        """True if the URL contains a password."""
        return bool(self.login.removesuffix("@").partition(":")[2])

    def with_provider(self, provider: str) -> "Address":
        """Return the address with a credential provider, by class name, instead of the password."""
        login = f"{self.login.removesuffix('@').partition(':')[0]}@" if self.user else ""
        return self._replace(login=login, options={**self.options, _PROVIDER: provider})


def read(url: str, name: str = "the server's URL") -> Address:
    """Return the parts of a URL.

    Raises UnknownServer, whose message says `name` instead of the URL: it may hold a password.
    """

    def wrong(fault: str) -> UnknownServer:
        return UnknownServer(f"{name} {fault}")

    given, separator, rest = url.partition("://") if isinstance(url, str) else ("", "", "")
    if not separator or any(character.isspace() or character < " " for character in url):
        raise wrong("must be a URL such as redis://127.0.0.1:6379/0")
    scheme = SCHEMES.get(given)
    if scheme is None:
        raise wrong(
            f"begins with {given[:40]!r}, and must begin with redis://, rediss://, valkey://, "
            "valkeys://, socket:// or unix://"
        )
    try:
        parts = urlsplit(f"http://{rest}")
        port = parts.port
    except ValueError:
        raise wrong("has an invalid host or port") from None
    login, at, place = parts.netloc.rpartition("@")
    if ";" in url or "," in place:
        raise wrong("names several servers, and streams need one")
    if parts.fragment or port == 0:
        raise wrong("has the port 0, or a '#' that is not written as %23")
    options = _options(parts.query, wrong)
    place, path = _place(scheme, parts, wrong)
    _check_tls(scheme, options, wrong)
    database = _database([path, *(options.pop(each, None) for each in _DATABASE)], wrong)
    return Address(scheme, login + at, place, database, options)


def _place(scheme: str, parts: SplitResult, wrong: MakeError) -> tuple[str, str | None]:
    """Return `host:port` or a socket's path, and the database named in the URL's path, if any."""
    if scheme == "socket":
        if parts.hostname or parts.port or parts.path in {"", "/"}:
            raise wrong("must have the path of a socket after three slashes: redis+socket:///run/r")
        return parts.path, None
    host = parts.hostname or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{parts.port or 6379}", parts.path.removeprefix("/") or None


def _check_tls(scheme: str, options: dict[str, str], wrong: MakeError) -> None:
    if scheme == "rediss":
        options.setdefault("ssl_cert_reqs", "required")
    elif options.keys() & set(_TLS):
        raise wrong("has TLS options, which need rediss:// or valkeys://")


def _options(query: str, wrong: MakeError) -> dict[str, str]:
    options = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _OPTIONS or key in options:
            raise wrong(f"has an option that is unknown or given twice: {key[:40]!r}")
        options[key] = value
        if key in _SECONDS and not re.fullmatch(r"[0-9]{1,6}", value):
            raise wrong(f"must have a whole number of seconds as {key}")
        if key == "ssl_cert_reqs":
            options[key] = value.lower().removeprefix("cert_")
            if options[key] not in _CERT_REQS:
                raise wrong(f"must have one of {', '.join(_CERT_REQS)} as {key}")
        if key == "ssl_check_hostname" and value not in {"true", "false"}:
            raise wrong(f"must have true or false as {key}")
    return options


def _database(texts: list[str | None], wrong: MakeError) -> int:
    """Return the database number: 0 unless the URL names one."""
    given = {text.strip("/") for text in texts if text is not None}
    if len(given) > 1:
        raise wrong("names several databases")
    text = given.pop() if given else "0"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise wrong(f"must end with a database number, not {text[:40]!r}")
    return int(text)


class _WithUser(CredentialProvider):
    """Adds the URL's user name to a provider that returns only a password."""

    def __init__(self, user: str, provider: Any) -> None:
        self._user = user
        self._provider = provider

    def get_credentials(self) -> Any:
        """Return the user's name and the password."""
        credentials = self._provider.get_credentials()
        return (self._user, *credentials) if len(credentials) == 1 else credentials


def provider(user: str | None, named: Any) -> Any:
    """Return a credential provider, given as an object or a class name, that adds `user` if any."""
    found = symbol_by_name(named)() if isinstance(named, str) else named
    return _WithUser(user, found) if user else found


class NamedUser:
    """Mixin for kombu's channels: keep the URL's user, which kombu drops when given a provider."""

    def _process_credential_provider(self, credential_provider: Any, connparams: Any) -> None:
        if credential_provider:
            user = connparams.get("username")
            credential_provider = provider(user, credential_provider)
        super()._process_credential_provider(credential_provider, connparams)  # type: ignore[misc]  # kombu's
