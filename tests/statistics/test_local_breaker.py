"""The local breaker's guarantee: exactly, in small cases; then in seeded lives of a process.

Nothing is sampled in the first part: each way in which the failing units can fall on the sides has
its exact probability.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from random import Random
from typing import Any

import pytest

from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.failure import Failure
from flagd_sdk.core.guard import breaker as module
from flagd_sdk.core.guard.breaker import LOCAL_PART, Breaker, Pair
from flagd_sdk.core.local_kill import Evidence
from flagd_sdk.core.model import Resolution
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.summary import Tally
from flagd_server.domain.guard.arms import Arms
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.metrics import ERRORS
from flagd_server.domain.guard.records import Cell
from tests.sdk.fakes import flag, flag_set
from tests.server.domain.guard.recordings import see

MARGIN = 1.05
FLAG = "new-checkout"
DEFAULT_GUARDS = ["error_rate", "latency", "availability"]

# What fails in one unit of work: the unit, the kinds, and the weight of "on" at that time.
Work = tuple[int, tuple[str, ...], int]

HASHES = [n * 0x9E3779B97F4A7C15 % (1 << 64) for n in range(1, 40)]
CASES: dict[str, list[Work]] = {
    "each once": [(n, ("A",), 25_000) for n in range(10)],
    "an outage at half": [(n, ("A",), 50_000) for n in range(10)],
    "again and again": [(n % 5, ("AABAAABBAB"[n],), 25_000) for n in range(10)],
    "several kinds at once": [(n, tuple("AB" if n % 2 else "CAB"), 25_000) for n in range(9)],
    "ramp": [(n, ("A",), [1_000, 5_000, 25_000, 50_000, 99_000][n // 2]) for n in range(10)],
}


def assignments(case: Sequence[Work], ratio: float) -> Iterator[tuple[float, dict[int, bool]]]:
    """Yield (probability, unit → is in the treatment); a unit's first failure is its coin."""
    coin: dict[int, float] = {}
    for unit, _, on in case:
        s = on / 100_000
        coin.setdefault(unit, ratio * s / (ratio * s + 1 - s))
    for sides in product((False, True), repeat=len(coin)):
        treated = dict(zip(coin, sides, strict=True))
        yield prod(p if treated[unit] else 1 - p for unit, p in coin.items()), treated


def paths(
    case: Sequence[Work], ratio: float, tau: int
) -> Iterator[tuple[float, list[dict[int | None, float]]]]:
    """Yield (probability, stream → e-value after each unit of work)."""
    for probability, treated in assignments(case, ratio):
        pair = Pair.start(MARGIN, 0.0)
        path = []
        for number, (unit, kinds, on) in enumerate(case):
            if HASHES[unit] < tau:
                pair.hear(
                    60.0 * number, HASHES[unit], kinds,
                    in_treatment=treated[unit], share=on / 100_000,
                )  # fmt: skip
            path.append({stream.kind: stream.coin.value for stream in pair.streams()})
        yield probability, path


@pytest.mark.parametrize("tau", [1 << 64, 1 << 63], ids=["all units", "thinned by hash"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_at_the_margin_every_stream_has_mean_one_at_every_look(
    case: Sequence[Work], tau: int
) -> None:
    means: list[dict[int | None, float]] = [{} for _ in case]
    for probability, path in paths(case, MARGIN, tau):
        for mean, values in zip(means, path, strict=True):
            for stream, value in values.items():
                mean[stream] = mean.get(stream, 0.0) + probability * value
    for mean in means:
        assert mean == pytest.approx(dict.fromkeys(mean, 1.0), abs=1e-9)


@pytest.mark.parametrize("bar", [1.5, 3.0, 10.0, 50.0])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_chance_of_ever_reaching_a_bar_is_at_most_one_in_it(
    case: Sequence[Work], bar: float
) -> None:
    reached: dict[int | None, float] = {}
    for probability, path in paths(case, MARGIN, 1 << 64):
        for stream in {stream for at in path for stream in at}:
            if any(at.get(stream, 0.0) >= bar for at in path):
                reached[stream] = reached.get(stream, 0.0) + probability
    assert max(reached.values(), default=0.0) <= 1.0 / bar


# --- the whole breaker ---------------------------------------------------------------------------


def guarded(on: int, version: int = 1, **policy: Any) -> FlagSet:
    document = {**flag(FLAG, on=on, version=version), "guard": {"guards": ["error_rate"], **policy}}
    return parse_flag_set(flag_set(document))


def served(flags: FlagSet) -> dict[bool, Resolution]:
    """Return what either side gets: is in the treatment → resolution."""
    found: dict[bool, Resolution] = {}
    for number in range(10_000):
        resolution = flags.resolve(FLAG, {"targetingKey": f"user-{number}"})
        found.setdefault(resolution.value is True, resolution)
        if len(found) == 2:
            return found
    raise AssertionError("one side has nobody")


@pytest.mark.parametrize("name", ["each once", "an outage at half", "several kinds at once"])
def test_healthy_flags_go_off_with_at_most_the_local_part_of_alpha(name: str) -> None:
    """Every way a process can see them fail, at an alpha that a dozen units can spend."""
    case, alpha = CASES[name], 0.999
    flags = guarded(case[0][2], alpha=alpha)
    sides, total = served(flags), 0.0
    for probability, treated in assignments(case, MARGIN):
        breaker = Breaker(processes=1)
        # As many of either side are well meanwhile as its share says.
        exposed = [{sides[True]: {1: on * n}, sides[False]: {1: (100_000 - on) * n}}
                   for n, (_, _, on) in enumerate(case, 1)]  # fmt: skip
        if any(
            breaker.hear(
                flags, [(sides[treated[u]], f"{HASHES[u]:016x}", kinds)], exposed[n], 60.0 * n
            )
            for n, (u, kinds, _) in enumerate(case)
        ):
            total += probability
    assert 0.0 < total <= LOCAL_PART * alpha


def test_the_same_failures_give_the_server_and_the_process_the_same_evidence() -> None:
    random = Random(11)
    pair = Pair.start(MARGIN, 0.0)
    comparison = Comparison.start(Arms("default", "on", "off"), ERRORS, MARGIN, 0.0)
    for number in range(400):
        t, unit = 5.0 * number, HASHES[0] * random.randrange(1, 200) % (1 << 64)
        on = 25_000 if number < 200 else 50_000
        treated = unit % 100_000 < on
        kinds = random.sample(["error:A", "error:B", "error:C"], random.randrange(1, 3))
        pair.hear(t, unit, kinds, in_treatment=treated, share=on / 100_000)
        see(comparison, t, [
            Cell(
                split="default", variant="on" if treated else "off",
                weights={"on": on, "off": 100_000 - on}, config_version=on, instance="i",
                exposures=1, errors=1, units=dict.fromkeys(kinds, (f"{unit:016x}",)),
            )
        ])  # fmt: skip
    life = comparison.epochs[0]
    assert pair.epoch.errors.coin.value == life.errors.coin.value != 1.0
    ours = {name: pair.epoch.kinds[k].coin.bets for name, k in pair.kinds.items()}
    theirs = {name: life.kinds[k].coin.bets for name, k in comparison.kinds.items()}
    assert ours == theirs
    assert len(ours) == 3


# --- lives of a process ---------------------------------------------------------------------------


class Process:
    """One process: real buckets, real counts, and a summary every second."""

    def __init__(self, flags: FlagSet, processes: int = 1) -> None:
        self.flags = flags
        self.breaker = Breaker(processes)
        self.tally = Tally()
        self.heard = 0
        self._summary_at = 1.0

    def is_on(self, user: str) -> bool:
        return self.flags.resolve(FLAG, {"targetingKey": user}).value is True

    def work(
        self, t: float, user: str, kinds: Iterable[str] = (), duration_s: float = 0.001
    ) -> list[Evidence]:
        context = {"targetingKey": user}
        found = {FLAG: self.flags.resolve(FLAG, context)}
        failures = [Failure(f"error:{kind}") for kind in kinds]
        decided, duration_us = [], int(duration_s * 1e6)
        if failures:
            self.heard += 1
            self.tally.record(found, context, self.flags.unit_key, duration_us, failures, t)
            decided = self.breaker.hear(self.flags, self.tally.failed, self.tally.cells, t)
        else:
            self.tally.count_all(deque(((found, duration_us, None),)))
        if t >= self._summary_at:
            self.breaker.recent.add(self.tally.take().cells, t)
            self._summary_at = t + 1.0
        return decided


def live(
    seed: int,
    fails: Mapping[str, Any],
    *,
    requests: int = 6_000,
    on: int = 25_000,
    alpha: float = 0.5,
    asks: int = 1,
) -> bool:
    """Return whether a healthy flag goes off in a life of 20 requests a second.

    Args:
        fails: "base" rate, "outage" (from, to, rate) in seconds, "renamed" kinds in the treatment.
        asks: how many units of work a user of the feature makes where others make one.
    """
    random = Random(seed)
    process = Process(guarded(on, alpha=alpha))
    prone = {number: random.expovariate(1.0) for number in range(1_500)}
    for number in range(requests):
        t, unit = number / 20, int(1_500 * random.random() ** 2)
        user = f"{seed}-{unit}"
        start, end, rate = fails.get("outage", (0.0, 0.0, 0.0))
        chance = rate if start <= t < end else fails["base"] * prone[unit]
        is_on = process.is_on(user)
        for _ in range(asks if is_on else 1):
            kinds = []
            if random.random() < chance:
                kind = random.choice("ABCD")
                kinds = [f"New{kind}" if is_on and fails.get("renamed") else kind]
            if process.work(t, user, kinds):
                return True
    return False


@pytest.mark.parametrize(
    "fails",
    [
        {"base": 0.02},
        {"base": 0.002, "outage": (60.0, 90.0, 0.9)},
        {"base": 0.0, "outage": (0.0, 20.0, 1.0)},
        {"base": 0.02, "renamed": True},
    ],
    ids=["plain", "outage in both arms", "everything fails at once", "renamed errors"],
)
def test_no_healthy_flag_goes_off(fails: Mapping[str, Any]) -> None:
    """At 500 times the default alpha; the local part of it would be one life in twenty."""
    assert sum(live(seed, fails) for seed in range(15)) == 0


def test_a_feature_whose_users_ask_more_often_stays_on() -> None:
    assert sum(live(seed, {"base": 0.01}, asks=3, requests=4_000) for seed in range(15)) == 0


def outage(rate: float, usual_s: float, sooner_s: float) -> bool:
    """Return whether a flag goes off when everything fails, and sooner on the new path.

    Args:
        rate: requests a second in the process.
        usual_s: how long a request takes; those under way when it begins end well.
        sooner_s: by so much the old path's timeout is longer than the new one's.
    """
    process = Process(guarded(25_000))
    ends: list[tuple[float, str, tuple[str, ...], float]] = []
    for number in range(int(-2 * rate), int(2 * rate)):
        user, began, takes_s, kinds = f"user-{number}", number / rate, usual_s, tuple[str, ...]()
        if began >= 0.0:
            takes_s, kinds = 0.01 if process.is_on(user) else 0.01 + sooner_s, ("Timeout",)
        ends.append((began + takes_s, user, kinds, takes_s))
    return any(process.work(*end) for end in sorted(ends))


@pytest.mark.parametrize("sooner_s", [0.1, 0.5, 10.0])
@pytest.mark.parametrize("usual_s", [0.02, 0.2])
@pytest.mark.parametrize("rate", [50.0, 200.0, 1_000.0])
def test_an_outage_that_fails_sooner_on_the_new_path_is_no_fault_of_it(
    rate: float, usual_s: float, sooner_s: float
) -> None:
    assert not outage(rate, usual_s, sooner_s)


@pytest.mark.parametrize(("bar", "usual_s"), [("CURRENT_BAR", 0.02), ("MOST_PATIENCE_S", 0.2)])
def test_without_a_look_at_what_is_under_way_it_would_be(
    bar: str, usual_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, bar, 0.0)
    assert outage(1_000.0, usual_s, 0.5)


def test_what_keeps_it_on_is_the_witness_by_exposures(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail: where the coin stands in for exposures, such lives are ended."""
    monkeypatch.setattr("flagd_sdk.core.guard.breaker.RecentExposures.share", lambda *_: None)
    assert sum(live(seed, {"base": 0.01}, asks=3, requests=4_000) for seed in range(5)) >= 2


def test_what_holds_it_back_then_is_what_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the tests above can fail: without the agreement such lives are ended."""
    monkeypatch.setattr(
        "flagd_sdk.core.guard.agreement.Agreement.objection", property(lambda self: None)
    )
    assert sum(live(seed, {"base": 0.02, "renamed": True}) for seed in range(5)) == 5


# Failing units of the new path until a flag at 25 % goes off, everybody else being well.
NEEDED = {1: 10, 48: 13, 100: 13}


@pytest.mark.parametrize("processes", NEEDED)
def test_a_fault_of_a_new_kind_is_decided_within_a_dozen_failing_units(processes: int) -> None:
    process = Process(guarded(25_000, guards=DEFAULT_GUARDS), processes)
    found = next(
        (decided, process.heard)
        for number in range(2_000)
        if (
            decided := process.work(
                number / 20,
                f"user-{number}",
                ["Boom"] if process.is_on(f"user-{number}") else (),
            )
        )
    )
    (evidence,), failing = found
    print(f"{processes} processes: off after {failing} failing units")
    assert failing == NEEDED[processes]
    assert (evidence.kind, evidence.treatment, evidence.control) == ("error:Boom", "on", "off")
    assert (evidence.in_treatment, evidence.in_control) == (failing, 0)
    assert evidence.log_e_value >= evidence.log_threshold


def test_old_errors_that_come_more_often_are_found_too() -> None:
    random = Random(3)
    process = Process(guarded(25_000, guards=DEFAULT_GUARDS), processes=48)
    for number in range(40_000):
        user = f"user-{number}"
        chance = 0.05 if process.is_on(user) else 0.01
        if process.work(number / 20, user, ["A"] if random.random() < chance else ()):
            break
    else:
        pytest.fail("never off")
    print(f"x5 of 1 %, 48 processes: off after {process.heard} failing units of both sides")
    assert process.heard < 150
