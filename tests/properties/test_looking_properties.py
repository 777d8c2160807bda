"""What is kept, left out, told and sent early does not depend on which side is which.

The same units of work go through two processes between which the two variants have changed
places. Whatever the bounds do, their summaries must be each other's mirror.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_sdk.core.failure import Failure
from flagd_sdk.core.looking import Watch
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.summary import Tally
from tests.sdk.fakes import UNIT_KEY, flag, flag_set

KEY = bytes.fromhex(UNIT_KEY)
FLAGS = ("a", "b")
MIRROR = {"on": "off", "off": "on"}


def side_by_side(version: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two flag sets, in which every unit is on the one side and on the other."""
    plain = flag_set(*(flag(key, on=30_000, version=version) for key in FLAGS))
    mirrored = flag_set(*(flag(key, on=30_000, version=version) for key in FLAGS))
    for document in mirrored["flags"].values():
        split = document["default_serve"]["split"]
        split["allocation"] = [[upto, MIRROR[name]] for upto, name in split["allocation"]]
    return plain, mirrored


SETS = {
    version: tuple(parse_flag_set(document) for document in side_by_side(version))
    for version in (1, 2)
}

WORK = st.tuples(
    st.integers(0, 30),  # unit
    st.sets(st.sampled_from(FLAGS), min_size=1),
    st.sampled_from([5, 1_000_001, 1_050_001, 10**8]),
    st.sampled_from([None, None, "error:A", "error:B"]),
    st.sampled_from([0.0, 0.0, 0.5, 1_900.0]),  # seconds since the one before
    st.sampled_from([1, 1, 1, 2]),  # version
    st.sampled_from([False, False, False, True]),  # a summary is made
)


@pytest.fixture(autouse=True, scope="module")
def little_room() -> Iterator[None]:
    """Make every bound one that a few units of work reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flagd_sdk.core.looking.MAX_REMEMBERED_UNITS", 12)
        patch.setattr("flagd_sdk.core.counts.MAX_PENDING_LOOKS", 6)
        patch.setattr("flagd_sdk.core.counts.MAX_PENDING_UNITS", 6)
        yield


def mirrored(document: dict[str, Any]) -> dict[str, Any]:
    for entry in (*document["cells"], *document["error_kinds"]):
        entry["variant"] = MIRROR[entry["variant"]]
    return document


@given(st.lists(WORK, max_size=120), st.sampled_from(["0" * 16, "8" + "0" * 15, "f" * 16]))
def test_two_sides_that_behave_alike_are_told_alike(
    done: list[tuple[int, set[str], int, str | None, float, int, bool]], below: str
) -> None:
    tallies = [Tally(Watch({"p99": 1.0, "p90": 0.5}, below)) for _ in range(2)]
    now_s = 0.0
    for unit, keys, duration_us, kind, pause_s, version, is_sent in done:
        now_s += pause_s
        context = {"targetingKey": f"u{unit}"}
        failures = () if kind is None else (Failure(kind),)
        told = []
        for tally, flags in zip(tallies, SETS[version], strict=True):
            served = {key: flags.resolve(key, context) for key in sorted(keys)}
            told.append(tally.record(served, context, KEY, duration_us, failures, now_s))
        assert told[0] == told[1]
        if is_sent:
            plain, other = (tally.take().document() for tally in tallies)
            assert plain == mirrored(other)
    plain, other = (tally.take().document() for tally in tallies)
    assert plain == mirrored(other)
