"""Keeps the last flag set on disk, for a start while the server is away.

A file is a header line (format, sequence, checksum) and the flag set as JSON. It is replaced as a
whole, never by an older sequence; whatever is wrong with it or with the disk costs only the cache.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from flagd_sdk.config import AUTO, ClientConfig
from flagd_sdk.notices import Notices

try:
    import fcntl
except ImportError:  # Windows: the check of the sequence stands there without a lock
    fcntl = None  # type: ignore[assignment]

_FORMAT = "flagd-release flag set 1"
_MAX_HEADER_BYTES = 200


class FlagCache:
    """One file for one server and environment. No method raises on account of the disk.

    Used by one thread at a time in a process; several processes may share the file.
    """

    def __init__(self, config: ClientConfig, notices: Notices) -> None:
        self._notices = notices
        self._max_bytes = config.max_flag_set_bytes
        self._is_chosen = config.cache_dir != AUTO
        self._is_damaged = False
        folder = _folder(config)
        self.path = None if folder is None else os.path.join(folder, _name(config))

    def load(self) -> object | None:
        """Return the document kept, or None where there is none or it is damaged."""
        if self.path is None:
            return None
        try:
            with open(self.path, "rb") as file:
                header = file.readline(_MAX_HEADER_BYTES)
                body = file.read(self._max_bytes + 1)
            if header != _header(_sequence_of(header), body) or len(body) > self._max_bytes:
                raise ValueError("it is damaged")
            document: object = json.loads(body)
            return document
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._is_damaged = True
            self._notices.tell(
                "cache:load", "The flag set kept in %s is not used: %s", self.path, error
            )
            return None

    def save(self, document: Mapping[str, object], sequence: int) -> bool:
        """Keep a flag set, unless a newer one is kept already.

        Returns:
            False where another process was writing in the same moment: try again later.
        """
        if self.path is None:
            return True
        try:
            text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
            body = text.encode("utf-8", "surrogatepass")
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
            with _locked(f"{self.path}.lock") as has_lock:
                if not has_lock:
                    return False
                if self._is_damaged or _kept_sequence(self.path) <= sequence:
                    _replace(self.path, _header(sequence, body) + body)
                    self._is_damaged = False
        except (OSError, ValueError) as error:
            # A read-only container is an ordinary place to run in, unless the folder was chosen.
            tell = self._notices.tell if self._is_chosen else self._notices.mention
            tell(
                "cache:save",
                "The flag set can't be kept on disk (%s); a start without the server would begin"
                " with the bootstrap or the defaults",
                error,
            )
        return True


def _folder(config: ClientConfig) -> str | None:
    if config.cache_dir is None:
        return None
    if config.cache_dir != AUTO:
        return os.fspath(config.cache_dir)
    # Never a folder that all users share: whoever can write the file decides about the flags.
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "flagd-release") if os.path.isabs(base) else None


def _name(config: ClientConfig) -> str:
    """Name the file by server and environment: the token without its secret tells the latter."""
    public = config.token.rpartition("_")[0] or config.token
    return _sha256(f"{config.url}\n{public}".encode())[:32] + ".flags"


def _sha256(raw: bytes) -> str:
    # OpenSSL behind it is a tenth of what `import flagd_sdk` may cost.
    from hashlib import sha256

    return sha256(raw).hexdigest()


def _header(sequence: int, body: bytes) -> bytes:
    checksum = _sha256(b"%d\n%b" % (sequence, body))
    return f"{_FORMAT} {sequence} {checksum}\n".encode()


def _kept_sequence(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return _sequence_of(file.readline(_MAX_HEADER_BYTES))
    except (OSError, ValueError):
        return -1


def _sequence_of(header: bytes) -> int:
    text = header.decode("ascii").removeprefix(_FORMAT).split()
    if len(text) != 2 or not text[0].isdigit():
        raise ValueError("it is no flag set")
    return int(text[0])


@contextmanager
def _locked(path: str) -> Iterator[bool]:
    """Hold the lock between processes, if it can be had at once."""
    if fcntl is None:
        yield True
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)  # releases it


def _replace(path: str, content: bytes) -> None:
    """Write a file that is either the old one or the new one, even after a crash."""
    # The lock is held, so the name is this process's own; what a crash left is overwritten.
    draft = f"{path}.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
