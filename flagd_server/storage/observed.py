"""Any storage, with its transactions and views timed and traced."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from flagd_server.errors import StorageError
from flagd_server.storage.base import OnNotice, PoolUse, Reader, Storage, Transaction
from flagd_server.tracing import Tracing

T = TypeVar("T")

# kind ("write" or "read"), outcome ("ok", "failed"), seconds
OnDone = Callable[[str, str, float], None]


class ObservedStorage:
    """Does what the storage given does.

    Args:
        system: which database it is, as OpenTelemetry calls it.
        on_done: told of each transaction and view. What the caller of one raises is no failure.
    """

    def __init__(self, storage: Storage, system: str, tracing: Tracing, on_done: OnDone) -> None:
        self._storage = storage
        self._attributes = {"db.system.name": system}
        self._tracing = tracing
        self._on_done = on_done

    def transaction(self) -> AbstractContextManager[Transaction]:
        return self._observed("write", self._storage.transaction)

    def read(self) -> AbstractContextManager[Reader]:
        return self._observed("read", self._storage.read)

    @contextmanager
    def _observed(self, kind: str, opened: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
        started_s = time.perf_counter()
        outcome = "ok"
        try:
            with (
                self._tracing.span(f"storage.{kind}", "internal", self._attributes),
                opened() as view,
            ):
                yield view
        except StorageError:
            outcome = "failed"
            raise
        finally:
            self._on_done(kind, outcome, time.perf_counter() - started_s)

    def listen(self, on_notice: OnNotice, on_gap: Callable[[], None]) -> None:
        self._storage.listen(on_notice, on_gap)

    def lead(self, on_change: Callable[[bool], None]) -> None:
        self._storage.lead(on_change)

    @property
    def is_leading(self) -> bool:
        return self._storage.is_leading

    @property
    def term(self) -> int | None:
        return self._storage.term

    def token_generation(self) -> int:
        return self._storage.token_generation()

    def pools(self) -> Mapping[str, PoolUse]:
        return self._storage.pools()

    def check_writable(self, timeout_s: float) -> None:
        self._storage.check_writable(timeout_s)

    def close(self) -> None:
        self._storage.close()
