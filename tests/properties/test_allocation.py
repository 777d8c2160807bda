"""Weights → buckets, over any history of weights."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from flagd_sdk.core.bucketing import BUCKETS
from flagd_server.domain.allocation import reallocate, united

NAMES = ("a", "b", "c", "d", "e", "f", "g", "off")


@st.composite
def weightings(draw: st.DrawFn) -> dict[str, int]:
    """Any shares, zeros among them, of up to 8 variants in any order."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=8, unique=True))
    cuts = draw(
        st.lists(
            st.one_of(st.integers(0, BUCKETS), st.sampled_from([0, 1, 50_000, BUCKETS])),
            min_size=len(names) - 1,
            max_size=len(names) - 1,
        )
    )
    bounds = [0, *sorted(cuts), BUCKETS]
    return {
        name: upper - lower for name, lower, upper in zip(names, bounds, bounds[1:], strict=False)
    }


histories = st.lists(weightings(), min_size=1, max_size=6)


def intervals(allocation: list[list[int | str]]) -> list[tuple[int, int, str]]:
    uppers = [int(upto) for upto, _ in allocation]
    return [
        (lower, upper, str(variant))
        for lower, upper, (_, variant) in zip([0, *uppers], uppers, allocation, strict=False)
    ]


def shares(allocation: list[list[int | str]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for lower, upper, variant in intervals(allocation):
        found[variant] = found.get(variant, 0) + upper - lower
    return found


def moved(first: list[list[int | str]], second: list[list[int | str]]) -> int:
    """Count the buckets that got another variant: all less the overlaps of equal ones."""
    return BUCKETS - sum(
        max(0, min(upper, other_upper) - max(lower, other_lower))
        for lower, upper, variant in intervals(first)
        for other_lower, other_upper, other in intervals(second)
        if variant == other
    )


def after(history: list[dict[str, int]]) -> list[list[list[int | str]]]:
    """Return the allocation after each step."""
    steps: list[list[list[int | str]]] = []
    for weights in history:
        steps.append(reallocate(steps[-1] if steps else None, weights, "off"))
    return steps


@given(histories)
def test_an_allocation_has_exactly_the_weights(history: list[dict[str, int]]) -> None:
    for weights, allocation in zip(history, after(history), strict=True):
        assert shares(allocation) == {name: share for name, share in weights.items() if share}


@given(histories)
def test_an_allocation_is_in_its_shortest_form(history: list[dict[str, int]]) -> None:
    for allocation in after(history):
        uppers = [upto for upto, _ in allocation]
        assert uppers == sorted(set(uppers))
        assert uppers[-1] == BUCKETS
        variants = [variant for _, variant in allocation]
        assert all(one != two for one, two in pairwise(variants))


@settings(max_examples=400)
@given(histories, weightings())
def test_a_change_moves_as_few_buckets_as_it_can(
    history: list[dict[str, int]], weights: dict[str, int]
) -> None:
    held = after(history)[-1]
    before = history[-1]
    names = {*before, *weights}
    distance = sum(abs(before.get(name, 0) - weights.get(name, 0)) for name in names) // 2
    assert moved(held, reallocate(held, weights, "off")) == distance


@given(histories, weightings())
def test_a_variant_that_does_not_shrink_keeps_all_its_users(
    history: list[dict[str, int]], weights: dict[str, int]
) -> None:
    held = after(history)[-1]
    changed = intervals(reallocate(held, weights, "off"))
    before = shares(held)
    for lower, upper, variant in intervals(held):
        if weights.get(variant, 0) >= before[variant]:
            overlaps = (
                min(upper, new_upper) - max(lower, new_lower)
                for new_lower, new_upper, new in changed
                if new == variant
            )
            assert sum(size for size in overlaps if size > 0) == upper - lower


@given(st.lists(st.integers(0, BUCKETS), min_size=1, max_size=12))
def test_two_variants_meet_the_same_users_in_the_same_order(ramp: list[int]) -> None:
    """Up, down and up again, to nothing and to all: the treatment has the lowest buckets."""
    history = [{"on": share, "off": BUCKETS - share} for share in ramp]
    for share, allocation in zip(ramp, after(history), strict=True):
        on = [[share, "on"]] if share else []
        off = [[BUCKETS, "off"]] if share < BUCKETS else []
        assert allocation == on + off


@given(histories)
def test_the_same_history_gives_the_same_allocation(history: list[dict[str, int]]) -> None:
    assert after(history) == after(history)


@given(histories)
def test_the_same_weights_again_change_nothing(history: list[dict[str, int]]) -> None:
    held = after(history)[-1]
    assert reallocate(held, history[-1], "off") == held


@st.composite
def resting(draw: st.DrawFn) -> list[list[int]]:
    """Any buckets, adjacent and overlapping stretches among them."""
    bounds = st.tuples(st.integers(0, BUCKETS - 1), st.integers(1, BUCKETS))
    found = draw(st.lists(bounds, max_size=5))
    return united([[low, high] for low, high in found if low < high])


def is_in(bucket: int, stretches: list[list[int]]) -> bool:
    return any(start <= bucket < end for start, end in stretches)


def buckets_of(allocation: list[list[int | str]], variant: str) -> list[list[int]]:
    return [[lower, upper] for lower, upper, name in intervals(allocation) if name == variant]


def overlap(first: list[list[int]], second: list[list[int]]) -> int:
    return sum(
        max(0, min(end, other_end) - max(start, other_start))
        for start, end in first
        for other_start, other_end in second
    )


def size(stretches: list[list[int]]) -> int:
    return sum(end - start for start, end in stretches)


@given(resting(), resting())
def test_united_stretches_are_in_their_shortest_form(
    first: list[list[int]], second: list[list[int]]
) -> None:
    both = united(first, second)
    assert all(one[1] < two[0] for one, two in pairwise(both))
    for bucket in {b for start, end in (*first, *second) for b in (start, end - 1, end)}:
        assert is_in(bucket, both) == (is_in(bucket, first) or is_in(bucket, second))


@settings(max_examples=300)
@given(resting(), histories)
def test_whatever_rests_the_weights_hold_and_as_little_moves_as_can(
    rested: list[list[int]], history: list[dict[str, int]]
) -> None:
    held = None
    before: dict[str, int] = {}
    for weights in history:
        allocation = reallocate(held, weights, "off", rested)
        assert shares(allocation) == {name: share for name, share in weights.items() if share}
        assert all(one[1] != two[1] for one, two in pairwise(allocation))
        if held is not None:
            names = {*before, *weights}
            distance = sum(abs(before.get(n, 0) - weights.get(n, 0)) for n in names) // 2
            assert moved(held, allocation) == distance
        held, before = allocation, weights


@settings(max_examples=300)
@given(resting(), st.lists(st.integers(0, BUCKETS), min_size=1, max_size=8))
def test_whoever_rests_comes_last_on_the_way_up_and_goes_first_on_the_way_down(
    rested: list[list[int]], ramp: list[int]
) -> None:
    """And nobody who has the variant loses it by a rise, whatever the steps were."""
    held = None
    had: list[list[int]] = []
    share_before = 0
    awake = BUCKETS - size(rested)
    for share in ramp:
        held = reallocate(held, {"on": share, "off": BUCKETS - share}, "off", rested)
        on = buckets_of(held, "on")
        assert overlap(on, rested) == max(0, share - awake)
        kept = had if share >= share_before else on
        assert overlap(had, on) == size(kept)
        had, share_before = on, share


@given(resting(), st.lists(st.integers(0, BUCKETS), min_size=1, max_size=8))
def test_with_rest_too_the_order_is_one(rested: list[list[int]], ramp: list[int]) -> None:
    """A share means the same users, whatever was served before it."""
    held = None
    for share in ramp:
        weights = {"on": share, "off": BUCKETS - share}
        held = reallocate(held, weights, "off", rested)
        assert held == reallocate(None, weights, "off", rested)
