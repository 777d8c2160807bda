from collections.abc import Sequence
from typing import Any

import pytest

from flagd_sdk.core.counts import Durations
from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.guard import breaker as module
from flagd_sdk.core.guard.breaker import Breaker
from flagd_sdk.core.guard.policy import guarding_of
from flagd_sdk.core.guard.streams import LIFE_S
from flagd_sdk.core.local_kill import Evidence
from flagd_sdk.core.model import Resolution
from flagd_sdk.core.parsing import parse_flag_set
from tests.sdk.fakes import flag, flag_set

FLAG = "new-checkout"
ENOUGH = 30  # failing units of the treatment decide at a quarter, and far more than are needed


def flags(**fields: Any) -> FlagSet:
    return parse_flag_set(flag_set({**flag(FLAG), **fields}))


def split(allocation: Sequence[Sequence[Any]]) -> dict[str, Any]:
    document = {"bucket_by": "targetingKey", "salt": FLAG, "allocation": allocation}
    return {"split": document}


THREE_ARMS = {
    "variants": {"on": True, "more": True, "off": False},
    "default_serve": split([[20_000, "on"], [40_000, "more"], [100_000, "off"]]),
}


def served(flag_set: FlagSet, variant: str) -> Resolution:
    for number in range(10_000):
        resolution = flag_set.resolve(FLAG, {"targetingKey": f"user-{number}"})
        if resolution.variant == variant:
            return resolution
    raise AssertionError(f"nobody gets {variant}")


class Feed:
    """Lets one new unit fail each second, until the flag goes off."""

    def __init__(self, processes: int = 1) -> None:
        self.breaker = Breaker(processes)
        self.t = 0.0
        self.units = 0
        self.counted: dict[Resolution, Durations] = {}

    def __call__(
        self, flag_set: FlagSet, variant: str = "on", units: int = ENOUGH, kind: str = "error:Boom"
    ) -> Evidence | None:
        resolution = served(flag_set, variant)
        for _ in range(units):
            self.t += 1.0
            self.units += 1
            unit = f"{self.units * 0x9E3779B97F4A7C15 % (1 << 64):016x}"
            # Three of the control are well meanwhile.
            for each, exposures in ((resolution, 1), (served(flag_set, "off"), 3)):
                durations = self.counted.setdefault(each, {1: 0})
                durations[1] += exposures
            found = self.breaker.hear(flag_set, [(resolution, unit, [kind])], self.counted, self.t)
            if found:
                return found[0]
        return None


def test_it_names_what_decided() -> None:
    evidence = Feed()(flags(version=7))
    assert evidence is not None
    assert evidence[:6] == (FLAG, 7, "default", "on", "off", "error:Boom")
    assert evidence.in_control == 0
    assert evidence.sentence.startswith(
        f"{evidence.in_treatment} of {evidence.in_treatment} units with error:Boom had 'on' "
        "(by chance 25% of them would); log E is "
    )


@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "observe"}, {"mode": "off"}, {"on_breach": "hold"}, {"guards": ["latency"]},
        {"alpha": 0}, {"alpha": "0.1"}, {"margin": 0.5}, {"control": ["off"]}, {"control": "gone"},
        {"guards": 7}, "enforce", [],
    ],
    ids=str,
)  # fmt: skip
def test_it_acts_only_where_the_policy_lets_it(policy: Any) -> None:
    assert Feed()(flags(guard=policy)) is None


def test_a_flag_that_the_server_would_roll_back_goes_off_here() -> None:
    assert Feed()(flags(guard={"on_breach": "rollback"})) is not None


def test_a_flag_without_a_policy_is_guarded_by_the_default_one() -> None:
    full = {"mode": "enforce", "control": None, "alpha": 0.001, "margin": 1.05,
            "guards": ["error_rate", "latency", "availability"], "on_breach": "kill"}  # fmt: skip
    without, with_it = Feed(), Feed()
    assert without(flags()) is not None
    assert with_it(flags(guard=full)) is not None
    assert without.units == with_it.units


def test_failures_of_the_control_take_nothing_off() -> None:
    assert Feed()(flags(), "off", 300) is None


def test_the_control_is_the_named_one_else_the_off_variant_else_the_heaviest() -> None:
    def control(**fields: Any) -> str | None:
        guarding = guarding_of({**flag(FLAG), **fields})
        assert guarding is not None
        return guarding.control_of("default", None)

    assert control(**THREE_ARMS) == "off"
    assert control(**THREE_ARMS, guard={"control": "more"}) == "more"
    without_off = split([[20_000, "on"], [100_000, "more"]])
    assert control(**THREE_ARMS | {"default_serve": without_off}) == "more"
    alone = split([[100_000, "on"]])
    assert control(**THREE_ARMS | {"default_serve": alone}) is None


def test_a_control_once_chosen_stays_while_it_has_weight() -> None:
    heavier = {**THREE_ARMS, "default_serve": split([[70_000, "on"], [100_000, "more"]])}
    guarding = guarding_of({**flag(FLAG), **heavier})
    assert guarding is not None
    assert guarding.control_of("default", None) == "on"
    assert guarding.control_of("default", "more") == "more"


def test_only_the_arm_that_hurts_is_named_and_alpha_is_divided() -> None:
    two, three = Feed(), Feed()
    of_three = three(flags(**THREE_ARMS))
    assert of_three is not None
    assert (of_three.treatment, of_three.control) == ("on", "off")
    of_two = two(flags(default_serve=split([[20_000, "on"], [80_000, "off"], [100_000, "on"]])))
    assert of_two is not None
    assert of_three.log_threshold == pytest.approx(of_two.log_threshold + 0.693, abs=0.001)


def test_the_off_variant_is_never_what_is_taken_off() -> None:
    assert Feed()(flags(guard={"control": "on"}), "off", 300) is None


def test_more_processes_each_need_more_evidence() -> None:
    evidence = [Feed(processes)(flags()) for processes in (1, 100)]
    low, high = (each.log_threshold for each in evidence if each is not None)
    assert high == pytest.approx(low + 4.605, abs=0.001)


def test_a_ramp_goes_on_with_the_same_evidence_at_its_own_share() -> None:
    feed = Feed()
    assert feed(flags(default_serve=flag(on=5_000)["default_serve"]), units=3) is None
    evidence = feed(flags(version=2))
    assert evidence is not None
    assert evidence.in_treatment == feed.units
    assert evidence.config_version == 2


@pytest.mark.parametrize(
    "change",
    [{"variants": {"on": True, "off": False, "third": False}}, {"guard": {"alpha": 0.002}},
     {"off_variant": "on", "guard": {"control": "off"}}],
    ids=str,
)  # fmt: skip
def test_what_changes_the_meaning_of_the_evidence_starts_anew(change: dict[str, Any]) -> None:
    feed = Feed()
    assert feed(flags(), units=7) is None
    assert feed(flags(version=2, **change), units=7) is None
    assert feed(flags(), units=100) is None, "of a version before the life"


def test_a_life_ends_after_seven_days_and_when_it_is_told() -> None:
    feed = Feed()
    assert feed(flags(), units=7) is None
    feed.breaker.forget(FLAG)
    assert feed(flags(), units=7) is None
    feed.t += LIFE_S
    assert feed(flags(), units=7) is None
    assert feed(flags()) is not None


def test_after_a_kill_it_takes_fresh_evidence_to_decide_again() -> None:
    feed = Feed()
    assert feed(flags()) is not None
    first = feed.units
    assert feed(flags(), units=first - 1) is None
    assert feed(flags(), units=1) is not None


def test_memory_is_bounded_by_hash_and_it_still_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOSSES", 64)
    feed = Feed()
    assert feed(flags(), "off", units=500) is None
    breaker = feed.breaker
    kept = [pair.units for life in breaker._lives.values() for pair in life.pairs.values()]
    assert breaker.tau < 1 << 62
    assert sum(map(len, kept)) <= 64
    assert all(unit < breaker.tau for units in kept for unit in units)
    assert feed(flags(), units=2_000, kind="error:New") is not None


def test_flags_beyond_the_bound_are_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LIVES", 0)
    assert Feed()(flags()) is None


def test_no_more_than_five_flags_go_off_in_a_minute() -> None:
    feed, off = Feed(), []
    for _ in range(8):
        feed.t = 0.0
        off.append(feed(flags()))
    assert [each is not None for each in off] == [True] * 5 + [False] * 3
    feed.t = 100.0
    assert feed(flags(), units=1) is not None


def test_the_order_in_which_a_unit_of_work_failed_does_not_matter() -> None:
    """It may know the side: what comes after the new path's first error may not on the old one."""
    shares = []
    for kinds in (["error:A", "error:B"], ["error:B", "error:A"]):
        pair = module.Pair.start(1.05, 0.0)
        pair.hear(1.0, 7, kinds, in_treatment=True, share=0.25)
        names = {index: name for name, index in pair.kinds.items()}
        shares.append({names[k]: stream.share for k, stream in pair.epoch.kinds.items()})
    assert shares[0] == shares[1]
