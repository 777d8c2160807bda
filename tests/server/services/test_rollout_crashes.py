"""A server that dies while it rolls out, at every point where it can."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from flagd_server.domain.rollout import RAISING, Move
from flagd_server.domain.stages import Stage
from flagd_server.services.rollout_watch import RolloutWatch
from flagd_server.storage.base import Reader, Storage, Transaction
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World
from tests.server.services.released_world import Release


class CrashError(BaseException):
    """The server dies here."""


class DyingStorage:
    """Dies at its nth transaction: with it undone, or right after its commit."""

    def __init__(self, storage: Storage, nth: int, *, is_durable: bool) -> None:
        self._storage = storage
        self._left = nth
        self._is_durable = is_durable

    def read(self) -> AbstractContextManager[Reader]:
        return self._storage.read()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._left -= 1
        with self._storage.transaction() as tx:
            yield tx
            if self._left == 0 and not self._is_durable:
                raise CrashError
        if self._left == 0:
            raise CrashError


def run_through(folder: Path, die_at: int | None = None, *, is_durable: bool = False) -> list[Any]:
    """Return the moves of a rollout whose server dies once at a transaction, and starts again."""
    folder.mkdir()
    release = Release(folder / "flagd.db")
    release.world.release(0)
    release.start(Stage(1.0, bake_time_s=2.0), Stage(5.0, bake_time_s=2.0), Stage(25.0))
    if die_at is not None:
        dying: Any = DyingStorage(release.world.storage, die_at, is_durable=is_durable)
        release.watch = RolloutWatch(dying, release.watch._moves)
    has_died = False
    for _ in range(40):
        try:
            release.forward(1)
        except CrashError:
            has_died = True
            release.world.close()
            again = Release(folder / "flagd.db", World(folder / "flagd.db", release.world.clock))
            again.sequence, again.now_s = release.sequence, release.now_s
            release = again
    assert has_died is (die_at is not None)
    rollout = release.rollout
    versions = [m.config_version for m in rollout.moves if m.move in RAISING]
    history = release.world.configurations.history(ENVIRONMENT, FLAG).items
    assert [v.version for v in reversed(history) if v.action == "rollout"] == versions
    release.world.close()
    return [(m.move, m.stage) for m in rollout.moves if m.move not in (Move.WAIT, Move.GO_ON)]


def test_a_server_that_dies_at_any_point_skips_and_doubles_nothing(tmp_path: Path) -> None:
    whole = run_through(tmp_path / "whole")
    assert [move for move, _ in whole] == [Move.START, Move.ADVANCE, Move.ADVANCE, Move.COMPLETE]
    for nth in range(1, 6):
        for is_durable in (False, True):
            folder = tmp_path / f"{nth} {is_durable}"
            assert run_through(folder, nth, is_durable=is_durable) == whole
