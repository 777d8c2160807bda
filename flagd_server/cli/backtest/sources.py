"""Where a backtest's events come from: a file, a life that is stored, or recorded requests."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TextIO

from flagd_server.cli.options import InputError
from flagd_server.domain.guard.backtest import Replay, read_recording
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Event, Policy, RecordError, parse_event
from flagd_server.domain.guard.traffic import (
    CONTROL,
    InjectedFault,
    Request,
    read_traffic,
    split_traffic,
)
from flagd_server.errors import NotFoundError
from flagd_server.storage import open_reader
from flagd_server.storage.base import Reader
from flagd_server.storage.records import GuardLife, GuardState

_PROCESSES = 3


@dataclass(frozen=True, slots=True)
class Recording:
    """Events to try policies on, and what is known of them. The events can be read once.

    Attributes:
        own_policy: what to call the policy that the replay has.
        has_wall_time: whether the events' times are seconds since the Unix epoch.
        notes: what to bear in mind.
        fault_at: when a fault was injected, on the clock of the events.
    """

    title: str
    replay: Replay
    events: Iterable[Event]
    own_policy: str
    has_wall_time: bool = False
    notes: tuple[str, ...] = ()
    fault_at: float | None = None


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Say of a record that can't be read where it came from.

    Raises:
        InputError: for each RecordError.
    """
    try:
        yield
    except RecordError as error:
        raise InputError(f"{source}: {error}") from None


@contextmanager
def open_lines(name: str) -> Iterator[Iterator[str]]:
    """Open a text file, or standard input for `-`.

    Raises:
        InputError: it can't be opened; from the iterator: it can't be read, or is no UTF-8.
    """
    try:
        # A descriptor of its own for standard input too, which may have been started closed.
        file = open(0 if name == "-" else name, encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError(f"can't read {name}: {error.strerror}") from error
    with file:
        yield _lines(file, name)


def _lines(file: TextIO, name: str) -> Iterator[str]:
    try:
        yield from file
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read {name}: {error}") from error


@contextmanager
def open_recording(name: str) -> Iterator[Recording]:
    """Open recorded events, as `read_recording` reads them."""
    with open_lines(name) as lines:
        with naming(name):
            policy, events = read_recording(lines)
        yield Recording(name, Replay(policy), _named(events, name), "as recorded")


def _named(events: Iterable[Event], name: str) -> Iterator[Event]:
    with naming(name):
        yield from events


@contextmanager
def open_life(
    database: str, environment: str, flag: str, life_id: int | None
) -> Iterator[Recording]:
    """Open the stored events of a flag's life, the newest one where no id is given.

    Raises:
        StorageError: the database can't be read.
        NotFoundError: there is no such environment or flag.
        InputError: the flag has no such life.
    """
    with open_reader(database) as reader:
        life = _find_life(reader, environment, flag, life_id)
        state = reader.load_guard_state(life.id)
        assert state is not None, "a life is inserted together with its first state"
        guard = FlagGuard.from_document(json.loads(state.document)["guard"])
        guard = guard.renewed(json.loads(life.document)["started_at"])
        name = f"life {life.id} of {flag} in {environment}"
        yield Recording(
            title=f"{name} ({life.outcome or 'running'})",
            replay=Replay(guard.policy, guard),
            events=_named(_stored_events(reader, life), name),
            own_policy="as it ran",
            has_wall_time=True,
            notes=_notes(life, state),
        )


def _find_life(reader: Reader, environment: str, flag: str, life_id: int | None) -> GuardLife:
    if reader.environment(environment) is None:
        raise NotFoundError("environment", environment)
    if reader.flag(flag) is None:
        raise NotFoundError("flag", flag)
    lives = reader.guard_lives(environment, flag)
    if not lives:
        raise InputError(f"{flag} was never guarded in {environment}")
    for life in lives:
        if life_id in (None, life.id):
            return life
    known = ", ".join(str(life.id) for life in lives)
    raise InputError(f"--life: expected one of {flag} in {environment} ({known}), got {life_id}")


def _notes(life: GuardLife, state: GuardState) -> tuple[str, ...]:
    notes = []
    if state.event_id > 0:
        notes.append(
            "Reports without a failing unit are stored for a while only: of exposures, failed"
            " requests and excess there were more."
        )
    if life.outcome == "killed":
        notes.append("This life ended in a kill: what a policy would have done later is not known.")
    return tuple(notes)


def _stored_events(reader: Reader, life: GuardLife) -> Iterator[Event]:
    for event in reader.guard_events_after(life.id, 0):
        document = json.loads(event.document)
        del document["version"]  # the configuration's; the guard does not know it
        yield parse_event(document)


def open_traffic(name: str, buckets: int, seed: int, fault: InjectedFault | None) -> Recording:
    """Return recorded requests as they would be reported of a flag that splits their visitors.

    Raises:
        InputError: the file can't be read.
    """
    traffic = _read_traffic(name)
    random = Random(seed)  # noqa: S311 (what chance decides is to be the same again)
    title = f"{Path(name).name}, split at {buckets / 1_000:g} %"
    if fault is not None:
        kind = "a new kind" if fault.has_new_kind else "old kinds"
        title += f", fault ×{fault.ratio:g} of {kind} after {fault.after_s:g} s"
    return Recording(
        title=title,
        replay=Replay(Policy(off_variant=CONTROL)),
        events=split_traffic(traffic, buckets, _PROCESSES, random, fault),
        own_policy="default",
        has_wall_time=True,
        fault_at=None if fault is None else traffic[0].t + fault.after_s,
    )


def _read_traffic(name: str) -> list[Request]:
    try:
        with gzip.open(name, "rt", encoding="utf-8", newline="") as file, naming(name):
            return read_traffic(file)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"can't read {name}: {error}") from error
