"""What goes into the guard and what comes out: recorded events, the policy, the decision.

One format serves the running server, its log of a life, and the backtest.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, NamedTuple

from flagd_sdk.core.guard import policy
from flagd_sdk.core.guard.coin import DEFAULT_MARGIN

DEFAULT_ALPHA = policy.DEFAULT_ALPHA

# In seconds: any clock that counts from any epoch fits, and differences stay exact to the ms.
MAX_T = 1e12


GUARDS = ("error_rate", "latency", "availability")
QUANTILES = ("p99", "p90")
ON_BURN = ("hold", "kill")


@dataclass(frozen=True, slots=True)
class Policy:
    """How a flag is guarded.

    Attributes:
        alpha: the probability of a false kill over a whole life.
        margin: the ratio of failing users that is tolerated.
        control: the variant to compare with, where it is named.
        guards: what is watched, of `GUARDS`.
        slow: the quantiles of the control's durations by which latency is watched, of `QUANTILES`.
        harm_budget: failing requests, beyond the control's rate, at which the flag goes off
            whether or not the evidence is significant; None for no such limit.
        on_burn: "kill" where a burn test without a control may kill; else it holds and tells.
        slos: service → availability objective, for the burn test.
    """

    alpha: float = DEFAULT_ALPHA
    margin: float = DEFAULT_MARGIN
    control: str | None = None
    off_variant: str | None = None
    guards: tuple[str, ...] = GUARDS
    slow: tuple[str, ...] = ("p99",)
    harm_budget: int | None = None
    on_burn: str = "hold"
    slos: Mapping[str, float] = field(default_factory=dict)

    @property
    def objectives(self) -> Mapping[str, float]:
        """The objectives that are watched; none where availability is not."""
        return self.slos if "availability" in self.guards else {}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Policy":
        lists = {name: tuple(document[name]) for name in ("guards", "slow")}
        return cls(**{**document, **lists})


class Cell(NamedTuple):
    """What one process reports of one variant, as served by one version of the configuration.

    A named tuple, since each summary has some made: a frozen dataclass takes three times as long.

    Attributes:
        split: id of the rule that split, "default", or None where no split decided.
        weights: the split's integer weights in that configuration version, by variant.
        units: kind → 16 hexadecimal digits for each unit that showed it.
        instance_since: when the server first saw the process, on the clock of the events;
            None where that is not known before its first event.
        token: id of the token by which it was reported.
    """

    split: str | None
    variant: str
    weights: Mapping[str, int]
    config_version: int
    instance: str
    exposures: int
    errors: int
    units: Mapping[str, tuple[str, ...]] = {}
    service: str = ""
    service_version: str = ""
    instance_since: float | None = None
    token: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One summary of one process, or an announcement by the server (then often without cells).

    Attributes:
        t: seconds; never before the event before it.
        announced: what the server itself changed just before, or None.
    """

    t: float
    cells: tuple[Cell, ...] = ()
    announced: str | None = None

    def to_document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"t": self.t, "announced": self.announced, "cells": []}
        for cell in self.cells:
            row = cell._asdict()
            if cell.instance_since is None:
                del row["instance_since"]
            document["cells"].append(row)
        return document


@dataclass(frozen=True, slots=True)
class Decision:
    """What the guard holds to be so after an event, for the stream nearest to its threshold.

    Attributes:
        t: when it was judged.
        kill: the flag is to go off. Stays true: a life has one decision.
        hold: evidence against the flag that is not enough to kill; a rollout should wait.
        e_value: evidence of that stream; at most 1 in mean while the feature does no harm.
        rate_witness: the second e-value, by exposures; must agree before a kill.
        threshold: what `e_value` has to reach.
        ratio: estimated ratio of failing units, treatment to control.
        reason: one sentence for a person.
        guard: what decided: "error_rate", "latency", "availability" or "harm_budget".
        blind: why the guard cannot see, where it cannot; silence is then not health.
    """

    t: float
    kill: bool
    hold: bool
    e_value: float
    rate_witness: float
    threshold: float
    stream: str
    ratio: float
    reason: str
    split: str | None = None
    treatment: str | None = None
    control: str | None = None
    guard: str = "error_rate"
    blind: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Decision":
        return cls(**{**document, "blind": tuple(document["blind"])})


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a person has to look at, beside decisions.

    Attributes:
        kind: "poisoned_telemetry" or "sample_ratio".
        subject: who or what it is about; the same again is no news.
    """

    kind: str
    subject: str
    detail: str


class RecordError(ValueError):
    """A recorded event that cannot be read; the message names the field and what was expected."""


def parse_policy(document: object) -> Policy:
    """Read `{"config": {"alpha": …, "margin": …, "control": …}}`, the first line of a recording.

    Raises:
        RecordError: it is something else, or a value is out of range.
    """
    config = _mapping(_mapping(document, "first line").get("config"), "config")
    _only(config, _POLICY_FIELDS, "config")
    default = Policy()
    alpha = _number(config.get("alpha", default.alpha), "config.alpha")
    margin = _number(config.get("margin", default.margin), "config.margin")
    if not 0.0 < alpha < 1.0:
        raise RecordError(f"config.alpha: expected a number between 0 and 1, got {alpha!r}")
    if not 1.0 <= margin <= 10.0:
        raise RecordError(f"config.margin: expected a number from 1 to 10, got {margin!r}")
    control, budget = config.get("control"), config.get("harm_budget")
    if budget is not None and _count(budget, "config.harm_budget") < 1:
        raise RecordError(f"config.harm_budget: expected a whole number from 1, got {budget}")
    return Policy(
        alpha=alpha,
        margin=margin,
        control=None if control is None else _text(control, "config.control"),
        guards=_some_of(config.get("guards", list(default.guards)), GUARDS, "config.guards"),
        slow=_some_of(config.get("slow", list(default.slow)), QUANTILES, "config.slow"),
        harm_budget=budget,
        on_burn=_some_of([config.get("on_burn", default.on_burn)], ON_BURN, "config.on_burn")[0],
        slos={
            service: _objective(value, f"config.slos.{service}")
            for service, value in _mapping(config.get("slos", {}), "config.slos").items()
        },
    )


_POLICY_FIELDS = frozenset(Policy.__dataclass_fields__) - {"off_variant"}


def _some_of(value: object, known: Collection[str], where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(name in known for name in value):
        raise RecordError(f"{where}: expected some of {', '.join(known)}, got {value!r:.60}")
    return tuple(name for name in known if name in value)


def _objective(value: object, where: str) -> float:
    objective = _number(value, where)
    if not 0.5 <= objective < 1.0:
        raise RecordError(f"{where}: expected a share from 0.5 to below 1, got {objective!r}")
    return objective


def parse_event(document: object) -> Event:
    """Read one recorded event.

    Raises:
        RecordError: a field is missing, of another type, or out of range.
    """
    event = _mapping(document, "event")
    _only(event, {"t", "announced", "cells"}, "event")
    announced = event.get("announced")
    cells = event.get("cells", [])
    if not isinstance(cells, list):
        raise RecordError(f"cells: expected a list, got {cells!r:.60}")
    t = _number(event.get("t"), "t")
    if not abs(t) <= MAX_T:
        raise RecordError(f"t: expected seconds between -{MAX_T:g} and {MAX_T:g}, got {t!r}")
    return Event(
        t=t,
        announced=None if announced is None else _text(announced, "announced"),
        cells=tuple(_parse_cell(cell, f"cells[{i}]") for i, cell in enumerate(cells)),
    )


_CELL_FIELDS = Cell._fields


def _parse_cell(document: object, where: str) -> Cell:
    cell = _mapping(document, where)
    _only(cell, _CELL_FIELDS, where)
    split, since = cell.get("split"), cell.get("instance_since")
    if split is not None and "weights" not in cell:
        raise RecordError(f"{where}.weights: expected the weights of split {split!r:.60}")
    weights = _mapping(cell.get("weights", {}), f"{where}.weights")
    units = _mapping(cell.get("units", {}), f"{where}.units")
    exposures = _count(cell.get("exposures"), f"{where}.exposures")
    errors = _count(cell.get("errors"), f"{where}.errors")
    if errors > exposures:
        raise RecordError(f"{where}.errors: expected at most exposures ({exposures}), got {errors}")
    return Cell(
        split=None if split is None else _text(split, f"{where}.split"),
        variant=_text(cell.get("variant"), f"{where}.variant"),
        weights={name: _count(w, f"{where}.weights.{name}") for name, w in weights.items()},
        config_version=_count(cell.get("config_version", 0), f"{where}.config_version"),
        instance=_text(cell.get("instance"), f"{where}.instance"),
        exposures=exposures,
        errors=errors,
        units={kind: _hashes(hs, f"{where}.units.{kind}") for kind, hs in units.items()},
        service=_text(cell.get("service", ""), f"{where}.service"),
        service_version=_text(cell.get("service_version", ""), f"{where}.service_version"),
        instance_since=None if since is None else _number(since, f"{where}.instance_since"),
        token=_text(cell.get("token", ""), f"{where}.token"),
    )


def _hashes(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise RecordError(f"{where}: expected a list of hashes, got {value!r:.60}")
    for text in value:
        if not isinstance(text, str) or len(text) != 16 or not set(text) <= _HEX:
            raise RecordError(
                f"{where}: expected 16 lower-case hexadecimal digits, got {text!r:.60}"
            )
    return tuple(value)


_HEX = set("0123456789abcdef")


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected an object, got {value!r:.60}")
    return value


def _only(value: Mapping[str, Any], known: Collection[str], where: str) -> None:
    unknown = sorted(set(value).difference(known))
    if unknown:
        raise RecordError(f"{where}: unknown field {unknown[0]!r}, expected {sorted(known)}")


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise RecordError(f"{where}: expected a finite number, got {value!r:.60}")
    return float(value)


def _count(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RecordError(f"{where}: expected a whole number, 0 or more, got {value!r:.60}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{where}: expected a string, got {value!r:.60}")
    return value
