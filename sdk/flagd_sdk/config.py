"""The settings of a client, validated once, when it is made."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from os import PathLike, fspath
from urllib.parse import urlsplit

from flagd_sdk.backoff import Backoff
from flagd_sdk.errors import ConfigurationError

_INSTANCE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MAX_NAME_CHARACTERS = 128
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Everything a client can be told.

    Attributes:
        url: of the server, http or https, with a path where a proxy puts it under one.
        token: an SDK token; it goes into one header and nowhere else, not even into `repr`.
        service, service_version: name the application in reports and let the guard tell a bad
            version from a bad flag; the version is best the git SHA that was built.
        bootstrap: a flag set, or a file with one, to serve before the first contact where the
            disk has none.
        cache_dir: where the last flag set is kept; "auto" is the user's cache folder, None off.
        instance: names this process to the server; random unless given.
        error_samples: whether the message of an error is reported with its count. Its class and
            place always are.
        connect_timeout_s, request_timeout_s: for a connection, and for a whole request.
        stream_silence_s: a stream without a byte for so long is dead: two heartbeats.
        poll_interval_s: between polls while there is no stream.
        report_interval_s: between summaries where there is news.
        heartbeat_interval_s: between summaries where there is none.
        exit_timeout_s: what the interpreter's exit may wait for the last summary.
        backoff: between attempts after failures.
        max_flag_set_bytes: a longer flag set is refused.
    """

    url: str
    token: str = field(repr=False)
    service: str = ""
    service_version: str = ""
    bootstrap: "str | PathLike[str] | Mapping[str, object] | None" = field(default=None, repr=False)
    cache_dir: "str | PathLike[str] | None" = AUTO
    instance: str | None = None
    error_samples: bool = True
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 10.0
    stream_silence_s: float = 30.0
    poll_interval_s: float = 10.0
    report_interval_s: float = 1.0
    heartbeat_interval_s: float = 10.0
    exit_timeout_s: float = 2.0
    backoff: Backoff = field(default_factory=Backoff)
    max_flag_set_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ConfigurationError: names the setting and what was expected.
        """
        _check_url(self.url)
        object.__setattr__(self, "url", self.url.rstrip("/"))
        _check_token(self.token)
        _check_name("service", self.service)
        _check_name("service_version", self.service_version)
        if self.bootstrap is not None and not isinstance(self.bootstrap, Mapping):
            _check_path("bootstrap", self.bootstrap, "a path, a mapping or None")
        if self.cache_dir is not None:
            _check_path("cache_dir", self.cache_dir, 'a path, "auto" or None')
        if self.instance is not None and not (
            isinstance(self.instance, str) and _INSTANCE.fullmatch(self.instance)
        ):
            raise ConfigurationError("instance: expected 1 to 64 of letters, digits and _.:-")
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError("backoff: expected a flagd_sdk.Backoff")
        for name in (
            "connect_timeout_s",
            "request_timeout_s",
            "stream_silence_s",
            "poll_interval_s",
            "report_interval_s",
            "heartbeat_interval_s",
            "exit_timeout_s",
            "max_flag_set_bytes",
        ):
            _check_positive(name, getattr(self, name))

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, where no proxy stands between."""
        return bool(_LOOPBACK.fullmatch(urlsplit(self.url).hostname or ""))


def _check_url(url: object) -> None:
    expected = "expected http:// or https:// and a host, such as https://flags.example.com"
    if not isinstance(url, str):
        raise ConfigurationError(f"url: {expected}")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    # The address is not repeated in the message, as it might hold credentials.
    if not is_usable or not url.isprintable() or " " in url:
        raise ConfigurationError(f"url: {expected}")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("url: expected no credentials in it; the token is a setting")
    if parts.query or parts.fragment:
        raise ConfigurationError("url: expected neither a query nor a fragment")


def _check_token(token: object) -> None:
    if not isinstance(token, str) or not token:
        raise ConfigurationError(
            "token: expected an SDK token, as `flagd-server token create` prints it"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError("token: expected printable ASCII without spaces")


def _check_name(name: str, value: object) -> None:
    if (
        not isinstance(value, str)
        or len(value) > _MAX_NAME_CHARACTERS
        or (value and not value.isprintable())
    ):
        raise ConfigurationError(
            f"{name}: expected up to {_MAX_NAME_CHARACTERS} printable characters"
        )


def _check_path(name: str, value: object, expected: str) -> None:
    try:
        is_usable = isinstance(fspath(value), str) and value != ""  # type: ignore[call-overload]
    except TypeError:
        is_usable = False
    if not is_usable:
        raise ConfigurationError(f"{name}: expected {expected}")


def _check_positive(name: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or value <= 0:
        raise ConfigurationError(f"{name}: expected a number above 0")
