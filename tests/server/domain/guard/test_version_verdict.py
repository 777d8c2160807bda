"""Verdicts on simulated services: two versions side by side, a flag at a quarter."""

import json
from collections.abc import Mapping
from random import Random

import pytest

from flagd_sdk.core.guard.coin import AT_A_CHANGE, CoinBets, EProcess
from flagd_server.domain.guard.records import Cell
from flagd_server.domain.guard.verdict_table import VersionCoin, Word
from flagd_server.domain.guard.version_verdict import Verdict, judge_versions
from flagd_server.domain.guard.versions import VersionBook

BETS = CoinBets.for_margin(1.05)
ON_SHARE = 0.25
Rates = Mapping[tuple[str, str], float]
"""(version, variant) → probability that a request fails."""


class World:
    """A service that feeds a book and keeps the coin of each version, as the guard does."""

    def __init__(self, seed: str, shares: Mapping[str, float], on_share: float = ON_SHARE) -> None:
        self.random = Random(seed)
        self.shares = shares
        self.on_share = on_share
        self.book = VersionBook()
        self.minute = 0
        self.failed: set[int] = set()
        self.found = {version: [0, 0] for version in shares}
        self.coins = {version: EProcess.start(BETS) for version in shares}
        self.used: dict[str, float | None] = dict.fromkeys(shares)

    def run(self, minutes: int, rates: Rates, requests: int = 400) -> None:
        for _ in range(minutes):
            t = 60.0 * self.minute
            for version, share in self.shares.items():
                failing: dict[str, list[int]] = {"on": [], "off": []}
                exposures = {"on": 0, "off": 0}
                for _ in range(round(requests * share)):
                    # Users come back: a unit has its side for good.
                    unit = self.random.randrange(20_000)
                    variant = "on" if unit < 20_000 * self.on_share else "off"
                    exposures[variant] += 1
                    if self.random.random() < rates[version, variant]:
                        failing[variant].append(unit)
                self.book.observe(t, [cell(version, v, exposures[v], failing[v]) for v in failing])
                self._toss(version, t, failing)
            self.minute += 1

    def _toss(self, version: str, t: float, failing: Mapping[str, list[int]]) -> None:
        fresh = {v: set(units) - self.failed for v, units in failing.items()}
        self.failed.update(*fresh.values())
        on, off = len(fresh["on"]), len(fresh["off"])
        if on + off:
            now = AT_A_CHANGE.elapsed(t)
            mass = AT_A_CHANGE.mass(now, self.used[version])
            self.coins[version].update(
                BETS.prior, mass, BETS.multipliers([(self.on_share, on, off)])
            )
            self.used[version] = now
            self.found[version][0] += on
            self.found[version][1] += off

    def verdicts(self) -> list[Verdict]:
        coins = {
            ("shop", version): VersionCoin(self.coins[version].value, on, off, self.on_share)
            for version, (on, off) in self.found.items()
            if 0.0 < self.on_share < 1.0
        }
        return judge_versions(self.book, coins, ["off"])

    def verdict(self) -> Verdict:
        return self.verdicts()[0]


def cell(version: str, variant: str, exposures: int, failing: list[int]) -> Cell:
    return Cell(
        split="default",
        variant=variant,
        weights={"on": 25_000, "off": 75_000},
        config_version=1,
        instance=f"i-{version}",
        exposures=exposures,
        errors=len(failing),
        # Spread over the range of hashes, as keyed hashes are.
        units={"error:E": tuple(f"{u * 0x9E3779B97F4A7C15 % (1 << 64):016x}" for u in failing)},
        service="shop",
        service_version=version,
    )


def rates(base: float, **raised: float) -> Rates:
    """`new_on=0.1` raises the rate of those served "on" by the version "new"."""
    return {
        (version, variant): raised.get(f"{version}_{variant}", base)
        for version in ("old", "new")
        for variant in ("on", "off")
    }


BASE = 0.005
SCENARIOS = [
    (Word.FLAG, None, rates(BASE, new_on=0.05, old_on=0.05)),
    (Word.VERSION, "new", rates(BASE, new_on=0.04, new_off=0.04)),
    (Word.VERSION, "old", rates(BASE, old_on=0.04, old_off=0.04)),
    (Word.BOTH, "new", rates(BASE, new_off=0.03, new_on=0.12, old_on=0.03)),
    (Word.FLAG_HERE, "new", rates(BASE, new_on=0.05)),
    (Word.FLAG_HERE, "old", rates(BASE, old_on=0.05)),
    (Word.NEITHER, None, rates(0.03)),
]


@pytest.mark.parametrize(("word", "version", "with_rates"), SCENARIOS)
@pytest.mark.parametrize("seed", ["a", "b", "c"])
@pytest.mark.parametrize("new_share", [0.5, 0.2])
def test_what_is_to_blame_is_found(
    word: Word, version: str | None, with_rates: Rates, seed: str, new_share: float
) -> None:
    world = World(f"{word} {seed} {new_share}", {"old": 1 - new_share, "new": new_share})
    world.run(120, with_rates)
    verdict = world.verdict()
    assert (verdict.word, verdict.version) == (word, version), verdict.reason


@pytest.mark.parametrize("seed", range(8))
def test_a_healthy_pair_is_never_blamed_however_often_it_is_looked_at(seed: int) -> None:
    world = World(f"healthy {seed}", {"old": 0.7, "new": 0.3})
    words = set()
    for _ in range(30):
        world.run(4, rates(0.03))
        words.add(world.verdict().word)
    assert words <= {Word.CANNOT_TELL, Word.NEITHER}
    assert world.verdict().word is Word.NEITHER


@pytest.mark.parametrize("seed", range(4))
def test_an_outage_of_everything_is_neither(seed: int) -> None:
    world = World(f"outage {seed}", {"old": 0.5, "new": 0.5})
    for with_rates in (rates(0.01), rates(0.5), rates(0.01)):
        world.run(20, with_rates)
        assert world.verdict().word in (Word.CANNOT_TELL, Word.NEITHER)


def test_before_there_is_enough_nothing_is_said() -> None:
    world = World("early", {"old": 0.5, "new": 0.5})
    world.run(2, rates(BASE))
    verdict = world.verdict()
    assert verdict.word is Word.CANNOT_TELL
    assert "too little to tell what the flag does" in verdict.reason
    assert "too few to tell" in verdict.reason


def test_no_failures_at_all_are_not_called_harmless() -> None:
    world = World("silent", {"old": 0.5, "new": 0.5})
    world.run(60, rates(0.0))
    assert world.verdict().word is Word.CANNOT_TELL


def test_a_single_version_has_a_flag_to_blame_or_not() -> None:
    bad, good = World("alone bad", {"new": 1.0}), World("alone good", {"new": 1.0})
    bad.run(30, rates(BASE, new_on=0.05))
    good.run(60, rates(0.01))
    assert (bad.verdict().word, bad.verdict().older) == (Word.FLAG, None)
    assert good.verdict().word is Word.NEITHER
    document = bad.verdict().to_document()
    assert (document["older"], document["flag_fixed"], document["flag_off"]) == (None, None, None)


def test_versions_that_never_ran_side_by_side_leave_the_flag_alone_in_question() -> None:
    world = World("one after the other", {"old": 1.0})
    world.run(3, rates(BASE))
    world.shares = {"new": 1.0}
    world.found["new"], world.used["new"] = [0, 0], None
    world.coins["new"] = EProcess.start(BETS)
    world.minute += 1
    world.run(20, rates(BASE, new_on=0.05))
    verdict = world.verdict()
    assert verdict.word is Word.FLAG
    assert "too few failed on old to tell whether it hurts there too" in verdict.reason


def test_at_one_hundred_per_cent_the_version_can_be_blamed_and_the_flag_cannot() -> None:
    world = World("everybody", {"old": 0.5, "new": 0.5}, on_share=1.0)
    world.run(60, rates(BASE, new_on=0.04))
    assert (world.verdict().word, world.verdict().version) == (Word.VERSION, "new")
    calm = World("everybody calm", {"old": 0.5, "new": 0.5}, on_share=1.0)
    calm.run(120, rates(0.01))
    assert calm.verdict().word is Word.CANNOT_TELL
    assert "nobody is without the feature" in calm.verdict().reason


def test_the_newest_pair_comes_first_and_others_where_they_tell() -> None:
    world = World("three", {"1": 0.4, "2": 0.4, "3": 0.2})
    raised = {
        (version, variant): 0.05 if version == "1" else BASE
        for version in "123"
        for variant in ("on", "off")
    }
    world.run(90, raised)
    pairs = [(v.newer, v.older, v.word, v.version) for v in world.verdicts()]
    assert pairs[0][:2] == ("3", "2")
    assert ("2", "1", Word.VERSION, "1") in pairs
    assert ("3", "1", Word.VERSION, "1") in pairs


def test_a_reason_is_one_sentence_with_its_figures() -> None:
    world = World("reason", {"old": 0.5, "new": 0.5})
    world.run(60, rates(BASE, new_on=0.05))
    reason = world.verdict().reason
    on, off = world.found["new"]
    assert reason.startswith(
        f"on new {on} of {on + off} failing units had the feature, 25.0% expected by chance"
    )
    assert "\n" not in reason
    assert "{" not in reason


@pytest.mark.parametrize(("word", "version", "with_rates"), SCENARIOS)
def test_a_verdict_is_a_document(word: Word, version: str | None, with_rates: Rates) -> None:
    world = World("document", {"old": 0.5, "new": 0.5})
    world.run(5, with_rates)
    document = json.loads(json.dumps(world.verdict().to_document(), allow_nan=False))
    assert document["service"] == "shop"
    assert [row["version"] for row in document["versions"]] == ["old", "new"]
    assert document["versions"][0]["coin"]["treatment_units"] == world.found["old"][0]
    assert document["flag_fixed"]["windows"] <= 5


def test_a_version_without_a_name_is_called_so() -> None:
    world = World("unnamed", {"": 1.0})
    world.run(3, {("", "on"): BASE, ("", "off"): BASE})
    assert "on the version without a name" in world.verdict().reason


def test_an_empty_book_has_no_verdicts() -> None:
    assert judge_versions(VersionBook(), {}, ["off"]) == []


def test_a_service_looks_at_its_own_coins_only() -> None:
    world = World("own", {"new": 1.0})
    world.run(2, rates(BASE))
    foreign = {("till", "new"): VersionCoin(1e9, 50, 0, 0.25)}
    assert judge_versions(world.book, foreign, ["off"])[0].word is Word.CANNOT_TELL
