"""Keeps the last flag set on disk, for a start while the server is away.

A file is a header line (format, sequence, checksum) and the flag set as JSON, with a member
`local_kills` where this or another process holds flags off. It is replaced as a whole, never by an
older sequence; whatever is wrong with it or with the disk costs only the cache.
"""

import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from flagd_sdk.config import AUTO, ClientConfig
from flagd_sdk.core.local_kill import LocalKill, parted
from flagd_sdk.notices import Notices

try:
    import fcntl
except ImportError:  # Windows: the check of the sequence stands there without a lock
    fcntl = None  # type: ignore[assignment]

_FORMAT = "flagd-release flag set 1"
_MAX_HEADER_BYTES = 200
# Windows has none of these, nor what they guard against.
_CAREFULLY = (
    getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)


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
            document: object = json.loads(self._read(self.path)[1])
            return document
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.distrust()
            self._notices.tell(
                "cache:load", "The flag set kept in %s is not used: %s", self.path, error
            )
            return None

    def distrust(self) -> None:
        """Let the next `save` replace what is kept, whatever its sequence."""
        self._is_damaged = True

    def save(
        self,
        document: Mapping[str, Any],
        sequence: int,
        kills: Iterable[LocalKill] = (),
        lifted: Collection[str] = (),
    ) -> bool:
        """Keep a flag set, unless a newer one is kept already, and the local kills beside it.

        Those of other processes stay beside them, while they are of the versions kept.

        Args:
            lifted: ids of kills that the server has ended, whoever kept them.

        Returns:
            False where another process was writing in the same moment: try again later.
        """
        if self.path is None:
            return True
        try:
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
            with _locked(f"{self.path}.lock") as has_lock:
                if not has_lock:
                    return False
                self._merge(self.path, document, sequence, kills, lifted)
                self._is_damaged = False
        except (OSError, ValueError, RecursionError) as error:
            # A read-only container is an ordinary place to run in, unless the folder was chosen.
            tell = self._notices.tell if self._is_chosen else self._notices.mention
            tell(
                "cache:save",
                "The flag set can't be kept on disk (%s); a start without the server would begin"
                " with the bootstrap or the defaults",
                error,
            )
        return True

    def _merge(
        self,
        path: str,
        document: Mapping[str, Any],
        sequence: int,
        kills: Iterable[LocalKill],
        lifted: Collection[str],
    ) -> None:
        others: list[LocalKill] = []
        is_newer = False
        try:
            kept_sequence, body = (-1, b"") if self._is_damaged else self._read(path)
            if kept_sequence > sequence or b'"local_kills"' in body:
                kept, others = parted(json.loads(body))
                if kept_sequence > sequence:
                    document, sequence, is_newer = _checked(kept), kept_sequence, True
        except (OSError, ValueError, RecursionError):
            pass  # it is replaced
        standing = {
            kill.flag: kill.to_document()
            for kill in (*others, *kills)
            if kill.id not in lifted and kill.stands_against(document["flags"].get(kill.flag))
        }
        if is_newer and standing == {kill.flag: kill.to_document() for kill in others}:
            return
        whole = {**document, "local_kills": standing} if standing else document
        text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        body = text.encode("utf-8", "surrogatepass")
        _replace(path, _header(sequence, body) + body)

    def _read(self, path: str) -> tuple[int, bytes]:
        """Return the sequence and what follows the header.

        Raises:
            OSError: it can't be read.
            ValueError: it is damaged.
        """
        with _open_own(path) as file:
            header = file.readline(_MAX_HEADER_BYTES)
            body = file.read(self._max_bytes + 1)
        sequence = _sequence_of(header)
        if header != _header(sequence, body) or len(body) > self._max_bytes:
            raise ValueError("it is damaged")
        return sequence, body


def _checked(document: object) -> dict[str, Any]:
    """Return a flag set that another process has kept.

    Raises:
        ValueError: it is none.
    """
    if isinstance(document, dict) and isinstance(document.get("flags"), dict):
        return document
    raise ValueError("it is no flag set")


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


def _open_own(path: str) -> BinaryIO:
    """Open a file of this user's, where nobody else can write to it.

    Raises:
        OSError: it can't be opened.
        ValueError: it is another user's, or not an ordinary file.
    """
    # Without waiting, as a named pipe would have it do; and not through a link that another put.
    file = open(os.open(path, os.O_RDONLY | _CAREFULLY), "rb")  # noqa: SIM115 - the caller closes
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not an ordinary file")
        if hasattr(os, "geteuid") and (
            status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH
        ):
            raise ValueError("another user can write it")
    except BaseException:
        file.close()
        raise
    return file


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
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # To close it would not do: a child forked meanwhile has it open for all its life.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _replace(path: str, content: bytes) -> None:
    """Write a file that is either the old one or the new one, even after a crash."""
    # The lock is held, so the name is this process's own; what a crash left is removed.
    draft = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(draft)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY, 0o600)
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
