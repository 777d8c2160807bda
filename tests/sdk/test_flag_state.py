from typing import Any

import pytest

from flagd_sdk import ClientStatus, FlagsChanged
from flagd_sdk.errors import ParseError
from flagd_sdk.flag_state import FlagState
from flagd_sdk.notices import Notices
from tests.sdk.fakes import FakeClock, flag, flag_set


@pytest.fixture
def state() -> FlagState:
    return FlagState(Notices(FakeClock()))


def change(sequence: int, key: str, document: dict[str, Any] | None) -> dict[str, Any]:
    return {"sequence": sequence, "key": key, "flag": document}


def test_the_first_flag_set_makes_it_ready(state: FlagState) -> None:
    assert (state.status, state.is_ready) == (ClientStatus.NOT_READY, False)
    state.apply_flags(flag_set(flag(), sequence=5))
    assert (state.status, state.is_ready) == (ClientStatus.READY, True)
    assert state.flag_set.sequence == 5


def test_an_older_flag_set_never_replaces_a_newer_one(state: FlagState) -> None:
    state.apply_flags(flag_set(flag("new"), sequence=5))
    state.apply_flags(flag_set(flag("old"), sequence=4))
    assert state.flag_set.sequence == 5
    assert set(state.flag_set.flags) == {"new"}


@pytest.mark.parametrize("sequence", [4, 5])
def test_a_change_that_is_held_already_is_ignored(state: FlagState, sequence: int) -> None:
    state.apply_flags(flag_set(flag(), sequence=5))
    held = state.flag_set
    state.apply_flag(change(sequence, "new-checkout", None))
    assert state.flag_set is held


def test_flags_are_added_changed_and_removed_one_by_one(state: FlagState) -> None:
    state.apply_flags(flag_set(flag("a"), sequence=5))
    state.apply_flag(change(6, "b", flag("b")))
    state.apply_flag(change(7, "a", flag("a", version=2)))
    assert {key: f.version for key, f in state.flag_set.flags.items()} == {"a": 2, "b": 1}
    state.apply_flag(change(8, "b", None))
    state.apply_flag(change(9, "never-there", None))
    assert set(state.flag_set.flags) == {"a"}
    assert state.flag_set.sequence == 9
    assert state.document == flag_set(flag("a", version=2), sequence=9)


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"sequence": "6", "key": "a", "flag": None}, {"sequence": 6, "flag": None},
     {"sequence": 6, "key": 1, "flag": None}, {"sequence": 6, "key": "a"}],
)  # fmt: skip
def test_a_change_that_cannot_be_read_is_refused_whole(state: FlagState, document: object) -> None:
    state.apply_flags(flag_set(flag(), sequence=5))
    held = state.flag_set
    with pytest.raises(ParseError):
        state.apply_flag(document)
    assert state.flag_set is held


def test_a_flag_set_that_cannot_be_read_leaves_the_one_held(state: FlagState) -> None:
    state.apply_flags(flag_set(flag(), sequence=5))
    with pytest.raises(ParseError):
        state.apply_flags({"sequence": 6})
    assert state.flag_set.sequence == 5


def test_a_change_without_its_flag_set_is_refused(state: FlagState) -> None:
    state.preload(flag_set(flag(), sequence=5), is_from_server=False)
    with pytest.raises(ParseError, match="came before"):
        state.apply_flag(change(6, "a", flag("a")))


def test_a_bootstrap_gives_way_to_any_word_of_the_server(state: FlagState) -> None:
    state.preload(flag_set(flag("boot"), sequence=999), is_from_server=False)
    assert (state.status, state.is_ready) == (ClientStatus.STALE, False)
    state.apply_flags(flag_set(flag("real"), sequence=5))
    assert set(state.flag_set.flags) == {"real"}


def test_what_the_disk_kept_does_not_give_way_to_an_older_word(state: FlagState) -> None:
    state.preload(flag_set(flag("kept"), sequence=9), is_from_server=True)
    state.apply_flags(flag_set(flag("older"), sequence=8))
    assert set(state.flag_set.flags) == {"kept"}
    assert state.is_ready, "the server was heard, and what is held is newer"


def test_listeners_hear_what_changed_and_nothing_else(state: FlagState) -> None:
    heard: list[FlagsChanged] = []
    state.subscribe(heard.append)
    state.apply_flags(flag_set(flag("a"), flag("b"), sequence=5))
    state.apply_flags(flag_set(flag("a"), flag("b"), sequence=6))
    state.apply_flags(flag_set(flag("a", version=2), flag("c"), sequence=7))
    state.apply_flag(change(8, "a", flag("a", version=3)))
    assert heard == [
        FlagsChanged(frozenset("ab"), 5),
        FlagsChanged(frozenset("abc"), 7),
        FlagsChanged(frozenset("a"), 8),
    ]


def test_a_changed_segment_may_change_every_flag(state: FlagState) -> None:
    heard: list[FlagsChanged] = []
    state.apply_flags(flag_set(flag("a"), flag("b"), sequence=5))
    state.subscribe(heard.append)
    segments = {"beta": {"attribute": "country", "op": "in", "values": ["NL"]}}
    state.apply_flags({**flag_set(flag("a"), flag("b"), sequence=6), "segments": segments})
    assert heard == [FlagsChanged(frozenset("ab"), 6)]


def test_a_listener_that_raises_is_logged_and_spoils_nothing(
    state: FlagState, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: FlagsChanged) -> None:
        raise RuntimeError("the host's fault")

    heard: list[FlagsChanged] = []
    state.subscribe(broken)
    state.subscribe(heard.append)
    state.apply_flags(flag_set(flag(), sequence=5))
    assert len(heard) == 1
    assert "broken" in caplog.text
    assert "the host's fault" in caplog.text


def test_unsubscribing_ends_one_subscription_once(state: FlagState) -> None:
    heard: list[FlagsChanged] = []
    listener = heard.append
    first = state.subscribe(listener)
    state.subscribe(listener)
    first()
    first()
    state.apply_flags(flag_set(flag(), sequence=5))
    assert len(heard) == 1


def test_the_first_flag_set_and_kills_are_urgent_and_nothing_else_is(state: FlagState) -> None:
    urgent: list[int] = []
    state.on_urgent = lambda: urgent.append(state.flag_set.sequence)
    state.apply_flags(flag_set(flag("a"), flag("b"), sequence=1))
    state.apply_flag(change(2, "a", flag("a", version=2)))
    state.apply_flag(change(3, "a", flag("a", version=3, killed=True)))
    state.apply_flag(change(4, "a", flag("a", version=4, killed=True)))
    state.apply_flag(change(5, "a", flag("a", version=5)))
    killed = flag_set(flag("a", version=6, killed=True), flag("b"), sequence=6)
    state.apply_flags(killed)
    assert urgent == [1, 3, 6]


def test_losing_touch_keeps_the_values_and_says_so(state: FlagState) -> None:
    state.lose_touch(is_refused=True)
    assert state.status == ClientStatus.ERROR
    state.lose_touch(is_refused=False)
    assert state.status == ClientStatus.NOT_READY
    state.apply_flags(flag_set(flag(), sequence=5))
    state.lose_touch(is_refused=True)
    assert state.status == ClientStatus.STALE
    state.confirm()
    assert state.status == ClientStatus.READY


def test_a_broken_flag_is_told_and_spoils_no_other(
    state: FlagState, caplog: pytest.LogCaptureFixture
) -> None:
    state.apply_flags(flag_set(flag("good", on=100_000), {"key": "bad"}, sequence=5))
    assert state.flag_set.resolve("good", {}).value is True
    assert "bad" in caplog.text
