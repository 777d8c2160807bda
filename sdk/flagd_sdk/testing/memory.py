"""A client in memory: the evaluation of a real one, without threads, network or disk.

What is set is served, and what was served is kept for the test to look at.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from typing import Any, Final, NamedTuple, TypeVar, cast

from flagd_sdk.client import FlagClient
from flagd_sdk.config import ClientConfig
from flagd_sdk.core.model import Resolution
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.types import ContextMapping, JsonValue, Reason, ResolutionDetails
from flagd_sdk.core.values import own_copy
from flagd_sdk.engine import Engine
from flagd_sdk.errors import ConfigurationError, ConnectError, EvaluationError
from flagd_sdk.reporter import Reporter
from flagd_sdk.scope import Scope
from flagd_sdk.testing.definitions import Values, document_of, key_of
from flagd_sdk.transport import FetchedFlags, Stream, Transport

Default = TypeVar("Default")

_MAX_RECORDS: Final = 10_000  # an application's client may live as long as all the tests
_NO_FLAGS: Final[dict[str, Any]] = {
    "environment": "test",
    "sequence": 1,
    "unit_key": "00" * 16,
    "flags": {},
    "segments": {},
}
_ERRORS: Final = {error.code: error for error in EvaluationError.__subclasses__()}


class Exposure(NamedTuple):
    """A variant that was served in a unit of work, which has ended.

    Attributes:
        targeting_key: of the unit of work's context.
        failures: kinds of the errors held against this flag, such as "error:KeyError".
    """

    flag: str
    variant: str | None
    value: JsonValue
    reason: Reason
    targeting_key: str | None
    failures: tuple[str, ...]


class RecordingReporter(Reporter):
    """Keeps what a reporter would count. What an override records, those around it do too."""

    around: "RecordingReporter | None" = None

    def _reset(self) -> None:
        super()._reset()
        self.witnessed = ()  # so that each unit of work leaves its targeting key
        self.exposures: deque[Exposure] = deque(maxlen=_MAX_RECORDS)
        self.unscoped_flags: deque[str] = deque(maxlen=_MAX_RECORDS)

    def count_finished(self) -> None:
        while self.finished:
            served, _, witness = self.finished.popleft()
            self._record(served, None if witness is None else witness[0], ())

    def count_failed(self, scope: Scope, ended_ns: int) -> None:
        self.count_finished()
        failures = tuple((failure.flag, failure.kind) for failure in scope.failures)
        self._record(scope.served, scope.unit, failures)

    def unscoped(self, flag: str) -> None:
        self.unscoped_flags.append(flag)
        if self.around is not None:
            self.around.unscoped(flag)

    def flush(self, timeout_s: float) -> bool:
        return True

    def _record(
        self,
        served: Mapping[str, Resolution],
        unit: str | None,
        failures: tuple[tuple[str | None, str], ...],
    ) -> None:
        for flag, resolution in served.items():
            self.exposures.append(
                Exposure(
                    flag,
                    resolution.variant,
                    own_copy(resolution.value),
                    resolution.reason,
                    unit,
                    tuple(kind for linked, kind in failures if linked in (None, flag)),
                )
            )
        if self.around is not None:
            self.around._record(served, unit, failures)


class _NoServer(Transport):
    def fetch_flags(self, etag: str) -> FetchedFlags | None:
        raise ConnectError("there is no server in tests")

    def open_stream(self, last_event_id: str, instance: str) -> Stream:
        raise ConnectError("there is no server in tests")

    def send_summary(self, body: bytes) -> Mapping[str, Any]:
        raise ConnectError("there is no server in tests")

    def after_fork(self) -> None:
        pass


class MemoryEngine(Engine):
    """An engine that starts nothing, and serves what it is told over what is below it.

    Attributes:
        below: the engine whose flags it adds to and stands in for, if any.
        is_strict: a flag that can't be evaluated raises.
    """

    reporter: RecordingReporter
    _reporter_type = RecordingReporter

    def __init__(
        self,
        config: ClientConfig,
        _transport: Transport | None = None,
        below: Engine | None = None,
    ) -> None:
        """Begin with the flags of the bootstrap; over another engine, with `set_flags`."""
        bootstrap = config.bootstrap if below is None else None
        super().__init__(config._replace(cache_dir=None, bootstrap=bootstrap), _NoServer())
        self.below = below
        self.is_strict = False
        self._bootstrapped = self.state.document
        self._values: dict[str, Any] = {}
        if isinstance(below, MemoryEngine):
            self.reporter.around = below.reporter
            self.is_strict = below.is_strict
        if below is None:
            self.set_flags({})

    def ensure_started(self) -> None:
        """Do nothing: there are no threads."""

    def set_flags(self, values: Values) -> None:
        """Serve these too, beginning with the next unit of work.

        Raises:
            ConfigurationError: a value or definition can't be used; nothing changes.
        """
        known = self._bootstrapped if self.below is None else self.below.state.document
        base = known or _NO_FLAGS
        sequence = max(base["sequence"], self.state.flag_set.sequence) + 1
        changes = {key_of(flag): value for flag, value in values.items()}
        all_values = {**self._values, **changes}
        flags = {key: flag for key, flag in base["flags"].items() if key not in all_values}
        for key, value in all_values.items():
            if value is not None:
                flags[key] = document_of(key, value, sequence)
        document = {**base, "sequence": sequence, "flags": flags}
        faults = parse_flag_set(document).faults
        for key in changes.keys() & faults.keys():
            raise ConfigurationError(f"flag {key}: {faults[key]}")
        self._values = all_values
        self.state.apply_flags(document)


def install(client: FlagClient, engine: Engine) -> None:
    """Let a client answer from an engine; strictly, where that is strict."""
    client._engine = engine
    client._state = engine.state
    if isinstance(engine, MemoryEngine) and engine.is_strict:
        # In front of the method: all that can't be answered the short way is asked there.
        vars(client)["details"] = partial(_strict_details, client)
    else:
        vars(client).pop("details", None)


def _strict_details(
    client: FlagClient, key: str, default: Default, context: ContextMapping | None = None
) -> ResolutionDetails[Default]:
    details = type(client).details(client, key, default, context)
    if details.reason is Reason.ERROR:
        error = _ERRORS.get(details.error_code, EvaluationError)  # type: ignore[arg-type]
        raise error(f"flag {key}: {details.error_message}")
    return details


class Recorded:
    """What a test sets, and what it looks at."""

    @property
    def _memory(self) -> MemoryEngine:
        raise NotImplementedError

    def set_flags(self, values: Values) -> None:
        """Serve these too, from the next unit of work on: one that is open keeps its flags.

        Args:
            values: flag (its key or handle) → its value for everybody, a `Definition`, or None
                for a flag that does not exist.

        Raises:
            ConfigurationError: a value or definition can't be used; nothing changes.
        """
        self._memory.set_flags(values)

    @property
    def exposures(self) -> list[Exposure]:
        """The exposures of all units of work that have ended, in that order; the last 10,000."""
        return list(self._memory.reporter.exposures)

    @property
    def unscoped(self) -> list[str]:
        """The flags that were evaluated outside any unit of work, in that order."""
        return list(self._memory.reporter.unscoped_flags)


class InMemoryClient(Recorded, FlagClient):
    """A client for tests, which is given its flags. It never starts, sends or keeps anything."""

    _engine_type = MemoryEngine

    def __init__(
        self,
        values: Values | None = None,
        *,
        bootstrap: str | PathLike[str] | Mapping[str, object] | None = None,
        strict: bool = False,
    ) -> None:
        """Begin with these flags.

        Args:
            values: as for `set_flags`.
            bootstrap: a flag set, or a file with one, that the values are put over.
            strict: raise an `EvaluationError` for a flag that does not exist, or is not of the
                type asked for, where production serves the default.

        Raises:
            ConfigurationError: a value, definition or the bootstrap can't be used.
        """
        super().__init__("http://localhost", "none", bootstrap=bootstrap)
        self._memory.is_strict = strict
        self._memory.set_flags(values or {})
        install(self, self._engine)

    def __repr__(self) -> str:
        return f"<InMemoryClient of {len(self.flag_set.flags)} flags>"

    @property
    def _memory(self) -> MemoryEngine:
        return cast("MemoryEngine", self._engine)


@contextmanager
def offline() -> Iterator[None]:
    """Make every `FlagClient` that is made meanwhile one that stays in memory, for its whole life.

    For an application that makes its client as it is imported: enter it before, or let the pytest
    plugin do so. Its bootstrap is read; its cache on disk is not.
    """
    before = FlagClient._engine_type
    FlagClient._engine_type = MemoryEngine
    try:
        yield
    finally:
        FlagClient._engine_type = before
