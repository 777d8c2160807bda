"""A staged rollout at one moment; its states and moves as one table. `rollout_rules.py` says which
move is due.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from flagd_server.domain.guard.blindness import Blind
from flagd_server.domain.release import Release
from flagd_server.domain.stages import Stage
from flagd_server.domain.times import format_time, parse_time


class State(StrEnum):
    """Where a rollout stands."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"
    KILLED = "killed"
    ROLLED_BACK = "rolled_back"


class Move(StrEnum):
    """What may happen to it."""

    START = "start"
    WAIT = "wait"
    GO_ON = "go_on"
    ADVANCE = "advance"
    COMPLETE = "complete"
    PAUSE = "pause"
    RESUME = "resume"
    SCHEDULE = "schedule"
    DISTURB = "disturb"
    ABORT = "abort"
    KILL = "kill"
    ROLL_BACK = "roll_back"


TABLE: Final[Mapping[tuple[State, Move], State]] = {
    (State.SCHEDULED, Move.START): State.RUNNING,
    (State.SCHEDULED, Move.PAUSE): State.PAUSED,
    (State.SCHEDULED, Move.ABORT): State.ABORTED,
    (State.SCHEDULED, Move.KILL): State.KILLED,
    (State.RUNNING, Move.WAIT): State.WAITING,
    (State.RUNNING, Move.ADVANCE): State.RUNNING,
    (State.RUNNING, Move.COMPLETE): State.COMPLETED,
    (State.RUNNING, Move.PAUSE): State.PAUSED,
    (State.RUNNING, Move.DISTURB): State.PAUSED,
    (State.RUNNING, Move.ABORT): State.ABORTED,
    (State.RUNNING, Move.KILL): State.KILLED,
    (State.RUNNING, Move.ROLL_BACK): State.ROLLED_BACK,
    (State.WAITING, Move.GO_ON): State.RUNNING,
    (State.WAITING, Move.ADVANCE): State.RUNNING,
    (State.WAITING, Move.COMPLETE): State.COMPLETED,
    (State.WAITING, Move.PAUSE): State.PAUSED,
    (State.WAITING, Move.DISTURB): State.PAUSED,
    (State.WAITING, Move.ABORT): State.ABORTED,
    (State.WAITING, Move.KILL): State.KILLED,
    (State.WAITING, Move.ROLL_BACK): State.ROLLED_BACK,
    (State.PAUSED, Move.RESUME): State.RUNNING,
    (State.PAUSED, Move.SCHEDULE): State.SCHEDULED,
    (State.PAUSED, Move.ABORT): State.ABORTED,
    (State.PAUSED, Move.KILL): State.KILLED,
    (State.PAUSED, Move.ROLL_BACK): State.ROLLED_BACK,
}
"""(state, move) → the state after it; what is not here can't happen."""

RAISING: Final = frozenset((Move.START, Move.ADVANCE, Move.RESUME))
"""The moves that change what is served, each to the percentage of its stage."""

OPEN_STATES: Final = frozenset(state for state, _ in TABLE)
BAKING: Final = frozenset((State.RUNNING, State.WAITING))
"""Those in which a stage is on its way to its end."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Attributes:
    what: "guard", "decision", "bake_time", "exposures", "approval" or "gate:" and its key.
    detail: one sentence for a person, who can act on it.
    """

    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A move as it was made. `stage` and `percent` are those after it."""

    at: datetime
    move: Move
    by: str
    reason: str
    stage: int | None
    percent: float | None
    config_version: int | None

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "at": format_time(self.at), "move": self.move.value}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Moved":
        return cls(
            **{
                **document,
                "at": parse_time(document["at"]),
                "move": Move(document["move"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout at one moment.

    Attributes:
        split: what is rolled out: "default", or the id of a rule.
        template: the name of the template its stages are a copy of; None where they are its own.
        stage: index of the stage that is served; None before the first.
        stage_version: the configuration version with which the stage began.
        baked_s: how long of its bake time the stage has had.
        approved: whether a person has approved the end of the stage.
        waiting_for: what keeps the next move from being made.
        config_version: the newest configuration that the rollout knows; None before the first.
        version: grows by one with every change that is stored.
    """

    id: str
    environment: str
    flag: str
    split: str
    from_variant: str
    to_variant: str
    stages: tuple[Stage, ...]
    template: str | None
    created_at: datetime
    created_by: str
    starts_at: datetime | None = None
    state: State = State.SCHEDULED
    stage: int | None = None
    stage_started_at: datetime | None = None
    stage_version: int | None = None
    baked_s: float = 0.0
    approved: bool = False
    waiting_for: tuple[Waiting, ...] = ()
    config_version: int | None = None
    ended_at: datetime | None = None
    moves: tuple[Moved, ...] = field(default=(), repr=False)
    version: int = 1

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def release(self) -> Release:
        return Release(self.split, self.from_variant, self.to_variant, self.stages)

    @property
    def present(self) -> Stage | None:
        return None if self.stage is None else self.stages[self.stage]

    @property
    def is_last(self) -> bool:
        return self.stage == len(self.stages) - 1

    def to_document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "environment": self.environment,
            "flag": self.flag,
            "split": self.split,
            "from_variant": self.from_variant,
            "to_variant": self.to_variant,
            "template": self.template,
            "stages": [stage.to_document() for stage in self.stages],
            "state": self.state.value,
            "starts_at": _optional(self.starts_at),
            "stage": self.stage,
            "stage_started_at": _optional(self.stage_started_at),
            "stage_version": self.stage_version,
            "baked_s": self.baked_s,
            "approved": self.approved,
            "waiting_for": [asdict(each) for each in self.waiting_for],
            "config_version": self.config_version,
            "created_at": format_time(self.created_at),
            "created_by": self.created_by,
            "ended_at": _optional(self.ended_at),
            "moves": [moved.to_document() for moved in self.moves],
            "version": self.version,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Rollout":
        times = {
            name: None if document[name] is None else parse_time(document[name])
            for name in ("starts_at", "stage_started_at", "ended_at")
        }
        return cls(
            **{
                **document,
                **times,
                "created_at": parse_time(document["created_at"]),
                "state": State(document["state"]),
                "stages": tuple(map(Stage.from_document, document["stages"])),
                "waiting_for": tuple(Waiting(**each) for each in document["waiting_for"]),
                "moves": tuple(map(Moved.from_document, document["moves"])),
            }
        )


def _optional(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a rollout has to know of the world before it moves.

    Attributes:
        config_version: the newest version of the configuration.
        changed_by: who made it; or, where the feature was taken off or back, who did that.
        is_killed: a kill stands, or stood for a moment since the rollout last looked.
        is_rolled_back: the guard has rolled the flag back since then.
        red: what is against more exposure, in a sentence; empty where nothing is.
        blind: what keeps the guard from seeing.
        exposures: of the new variant since the stage began.
        gates: key → (is it green, why not) of each gate of the stage.
    """

    config_version: int
    changed_by: str = ""
    is_killed: bool = False
    is_rolled_back: bool = False
    red: str = ""
    blind: Sequence[Blind] = ()
    exposures: int = 0
    gates: Mapping[str, tuple[bool, str]] = field(default_factory=dict)
