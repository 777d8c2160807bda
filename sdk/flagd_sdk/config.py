"""The settings of a client, validated once, when it is made."""

import re
from collections.abc import Mapping
from math import isfinite
from os import PathLike, fspath
from typing import Any, NamedTuple, Self

from flagd_sdk.backoff import Backoff
from flagd_sdk.errors import ConfigurationError

_INSTANCE = r"[A-Za-z0-9_.:-]{1,64}"
_MAX_NAME_CHARACTERS = 128
# Hosts as names, IPv4 and bracketed IPv6; user names, queries and fragments have no place in it.
_URL = r"https?://(?P<host>[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?(/[!$-;=@-_a-z~]*)?"
_OF_ENVIRONMENT = r"fr_[a-z]+_([a-z0-9-]+)_[A-Za-z0-9]+(?:\.[A-Za-z0-9_-]+)?"
_LOOPBACK = r"localhost|127(\.\d+){3}|\[::1\]"

AUTO = "auto"


class ClientConfig(NamedTuple):
    """Everything a client can be told; use what `checked` returns.

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
        local_breaker: whether the process takes a flag off by its own errors; what the server
            says of a flag later is final.
        backoff: between attempts after failures.
        max_flag_set_bytes: a longer flag set is refused.
    """

    url: str
    token: str
    service: str = ""
    service_version: str = ""
    bootstrap: "str | PathLike[str] | Mapping[str, object] | None" = None
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
    local_breaker: bool = True
    backoff: Backoff = Backoff()
    max_flag_set_bytes: int = 16 * 1024 * 1024

    def __repr__(self) -> str:
        return f"<ClientConfig {self.url}>"  # neither the token nor a whole bootstrap

    def checked(self) -> Self:
        """Return the settings, normalised.

        Raises:
            ConfigurationError: names the setting and what was expected.
        """
        _check_url(self.url)
        _check_token(self.token)
        _check_name("service", self.service)
        _check_name("service_version", self.service_version)
        if self.bootstrap is not None and not isinstance(self.bootstrap, Mapping):
            _check_path("bootstrap", self.bootstrap, "a path, a mapping or None")
        if self.cache_dir is not None:
            _check_path("cache_dir", self.cache_dir, 'a path, "auto" or None')
        if self.instance is not None and not (
            isinstance(self.instance, str) and re.fullmatch(_INSTANCE, self.instance)
        ):
            raise ConfigurationError("instance: expected 1 to 64 of letters, digits and _.:-")
        if not isinstance(self.local_breaker, bool):
            raise ConfigurationError("local_breaker: expected True or False")
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError("backoff: expected a flagd_sdk.Backoff")
        for name, value in self.backoff._asdict().items():
            _check_positive(f"backoff.{name}", value)
        if not self.backoff.floor_s <= self.backoff.first_s <= self.backoff.cap_s:
            raise ConfigurationError("backoff: expected floor_s <= first_s <= cap_s")
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
        return self._replace(url=self.url.rstrip("/"))

    @property
    def environment(self) -> str | None:
        """The environment that the token names; None where it is of another making."""
        match = re.fullmatch(_OF_ENVIRONMENT, self.token)
        return match and match[1]

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, where no proxy stands between."""
        match = re.fullmatch(_URL, self.url)
        return match is not None and bool(re.fullmatch(_LOOPBACK, match["host"].lower()))


def _check_url(url: object) -> None:
    match = re.fullmatch(_URL, url) if isinstance(url, str) else None
    if match is None or not 0 < int(match["port"] or 80) < 65_536:
        # The address is not repeated in the message, as it might hold credentials.
        raise ConfigurationError(
            "url: expected http:// or https://, a host and perhaps a port and a path, without"
            " credentials, query or fragment; such as https://flags.example.com"
        )


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


def _check_positive(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or value <= 0:
        raise ConfigurationError(f"{name}: expected a number above 0")
