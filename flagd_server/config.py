"""Settings, from environment variables; a secret may stand in a file, named by `…_FILE`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flagd_server.domain.token_text import is_admin_token
from flagd_server.errors import SettingsError

T = TypeVar("T")

_LOG_LEVELS = ("debug", "info", "warning", "error")
_MAX_SECRET_FILE_BYTES = 4096
_AFTER_SCHEME = re.compile(r"://.*", re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """What a server is started with. Not printed: it may hold a secret.

    Attributes:
        port: 0 takes any that is free.
        database: path of the SQLite file.
        threads: requests that are answered at once; streams take none.
        heartbeat_s: silence on a stream after which a comment is sent.
        retention_days: how long counts, error kinds and the events of ended lives are kept.
        admin_token: what the first admin token is to be; None for a random one.
        initial_tokens_file: where the first start writes its tokens; None to print them.
        git_sha: which commit is running, if the image says so.
    """

    host: str = "127.0.0.1"
    port: int = 8013
    database: str = "flagd.db"
    threads: int = 16
    heartbeat_s: float = 15.0
    retention_days: int = 30
    log_level: str = "info"
    access_log: bool = False
    admin_token: str | None = None
    initial_tokens_file: str | None = None
    git_sha: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the variables `FLAGD_…`; one that is empty counts as not set.

        Raises:
            SettingsError: with every fault.
        """
        reader = _Reader(environ)
        default = cls()
        settings = cls(
            host=reader.read("FLAGD_HOST", _text, default.host),
            port=reader.read("FLAGD_PORT", _integer(0, 65_535), default.port),
            database=reader.read("FLAGD_DATABASE", _path, default.database),
            threads=reader.read("FLAGD_THREADS", _integer(1, 256), default.threads),
            # SDKs take a stream for dead after two heartbeats of 15 s without a byte.
            heartbeat_s=reader.read("FLAGD_HEARTBEAT_S", _number(0.1, 15.0), default.heartbeat_s),
            retention_days=reader.read(
                "FLAGD_RETENTION_DAYS", _integer(8, 3_650), default.retention_days
            ),
            log_level=reader.read("FLAGD_LOG_LEVEL", _one_of(*_LOG_LEVELS), default.log_level),
            access_log=reader.read("FLAGD_ACCESS_LOG", _boolean, default.access_log),
            admin_token=reader.read_secret("FLAGD_ADMIN_TOKEN", _admin_token),
            initial_tokens_file=reader.read("FLAGD_INITIAL_TOKENS_FILE", _text, None),
            git_sha=reader.read("FLAGD_GIT_SHA", _text, default.git_sha),
        )
        if reader.faults:
            raise SettingsError(reader.faults)
        return settings


class _Reader:
    """Reads one variable after the other and gathers what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.faults: list[str] = []

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self._environ.get(name, "")
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            # A URL may hold a password.
            shown = _AFTER_SCHEME.sub("://…", text)
            self.faults.append(f"{name}: {error}, got {shown!r}")
            return default

    def read_secret(self, name: str, parse: Callable[[str], str]) -> str | None:
        """Read a variable, or the file that `<name>_FILE` names; never repeats the content."""
        text = self._environ.get(name, "")
        path = self._environ.get(f"{name}_FILE", "")
        if text and path:
            self.faults.append(f"{name}: set it or {name}_FILE, not both")
            return None
        source = name
        if path:
            source = f"{name}_FILE"
            try:
                with Path(path).open(encoding="utf-8") as file:
                    text = file.read(_MAX_SECRET_FILE_BYTES).strip()
            except (OSError, UnicodeDecodeError) as error:
                self.faults.append(f"{source}: can't read {path}: {error}")
                return None
        elif not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.faults.append(f"{source}: {error}")
            return None


def _text(text: str) -> str:
    return text


def _path(text: str) -> str:
    if "://" in text:  # as a file it would be made in a folder of that name, and seem to work
        raise ValueError("expected the path of a SQLite file")
    return text


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"expected a whole number from {low} to {high}")

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if low <= value <= high:
            return value
        raise ValueError(f"expected a number from {low:g} to {high:g}")

    return parse


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() in names:
            return text.lower()
        raise ValueError(f"expected one of {', '.join(names)}")

    return parse


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise ValueError("expected true or false")


def _admin_token(text: str) -> str:
    if is_admin_token(text):
        return text
    raise ValueError("expected fr_admin_ and 32 to 128 letters and digits")
