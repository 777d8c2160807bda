"""The same bits again: over restarts at any point, from the log, after thinning, after setting
aside."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Event
from tests.properties.guard_lives import (
    POLICY,
    at_even_times,
    disjoint_summaries,
    live,
    summary,
)

GUARD = "flagd_server.domain.guard"
CUTS = st.sets(st.integers(0, 12), max_size=4)


@contextmanager
def small_bounds(**bounds: int) -> Iterator[None]:
    """Let what takes a hundred thousand tosses happen within a few."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bounds.items():
            patch.setattr(f"{GUARD}.{name}", value)
        yield


THINNING = {"comparison.TOSSES_KEPT": 12}
SUSPICION = {
    "pair.LEAST_EVENTS": 4,
    "poisoning.LEAST_EVENTS": 3,
    "poisoning.DISPROPORTION": 1,
    "poisoning._OTHERS_AT_LEAST": 1,
}


def restarted(events: list[Event], cuts: set[int]) -> FlagGuard:
    life = FlagGuard(POLICY, 0.0)
    for position, event in enumerate(events):
        if position in cuts:
            life = FlagGuard.from_document(json.loads(json.dumps(life.to_document())))
        life.observe(event)
    return life


@given(disjoint_summaries(), CUTS, st.sampled_from([{}, THINNING, SUSPICION, THINNING | SUSPICION]))
@settings(max_examples=120, deadline=None)
def test_a_restart_at_any_point_leaves_the_same_bits_in_every_metric(
    summaries: list, cuts: set[int], bounds: dict[str, int]
) -> None:
    events = at_even_times(summaries)
    with small_bounds(**bounds):
        assert restarted(events, cuts).to_document() == live(events).to_document()


@given(disjoint_summaries(), st.sampled_from([{}, SUSPICION]))
@settings(max_examples=120, deadline=None)
def test_the_log_gives_every_stream_again_to_the_bit(
    summaries: list, bounds: dict[str, int]
) -> None:
    """Also where somebody was set aside. Once thinned, the log is a sample: see decision 0003."""
    with small_bounds(**bounds):
        (pair,) = live(
            [Event(0.0, summary([(1_000, 0)], "i1")), *at_even_times(summaries)]
        ).pairs.values()
        for compared in pair.comparisons.values():
            for _, stream in compared.streams():
                again = compared.replay(stream)
                assert again.coin == stream.coin
                assert again.in_treatment == stream.in_treatment
                assert again.in_control == stream.in_control


@given(disjoint_summaries())
@settings(max_examples=25, deadline=None)
def test_who_is_set_aside_leaves_the_life_as_if_it_had_never_spoken(summaries: list) -> None:
    """But for the shares of exposures in the past, which are replaced by the coin.

    A forger floods one summary in the middle; the streams stand as they would have without.
    """
    events = at_even_times(summaries)
    flood = Event(
        events[-1].t, summary([(10_000 + number, number % 2) for number in range(3_000)], "forger")
    )
    start = [
        Event(0.0, summary([(2_000 + number, number % 4)], f"i{number}")) for number in range(4)
    ]
    # Ten seconds later, when everybody else has been heard again, it is still out of proportion.
    last = Event(flood.t + 10.0, summary([(3_000, 0)], "i0"))
    with_forger, without = live([*start, *events, flood, last]), live([*start, *events, last])
    (pair,), (honest,) = with_forger.pairs.values(), without.pairs.values()
    assert [row["name"] for row in pair.set_aside] == ["forger"]
    for name, compared in pair.comparisons.items():
        for (_, stream), (_, other) in zip(
            compared.streams(), honest.comparisons[name].streams(), strict=True
        ):
            assert stream.coin == other.coin
    assert pair.arms.in_treatment == honest.arms.in_treatment
    assert pair.arms.in_control == honest.arms.in_control
