"""What this process has announced and not yet heard of itself, encoded already.

Hearing of a change made elsewhere costs a read; of one made here it must not, since a kill waits.
"""

import secrets
import threading
from itertools import count

from cachetools import LRUCache

# The changes of one transaction, at most: beyond them, and after a commit that failed, what is kept
# is pushed out by what comes, and the change is read as if another server had made it.
_KEPT = 1_024


class OwnChanges:
    """Thread-safe."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(8)
        self._numbers = count(1)
        self._lock = threading.Lock()  # guards _kept; taken last
        self._kept: LRUCache[str, tuple[bytes | None]] = LRUCache(_KEPT)

    def keep(self, encoded: bytes | None) -> str:
        """Keep what a notice will be about, and return by which name it is taken again.

        The name is never given twice, as a sequence is whose transaction came to nothing.
        """
        name = f"{self._process}-{next(self._numbers)}"
        with self._lock:
            self._kept[name] = (encoded,)
        return name

    def take(self, name: str) -> tuple[bytes | None] | None:
        """Return in a tuple what was kept, and drop it; None where it is not this process's."""
        with self._lock:
            kept: tuple[bytes | None] | None = self._kept.pop(name, None)
        return kept
