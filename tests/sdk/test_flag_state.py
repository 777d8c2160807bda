import threading
from typing import Any

import pytest

from flagd_sdk import ClientStatus, FlagsChanged
from flagd_sdk.core.evaluator import evaluate
from flagd_sdk.core.local_kill import MAX_LOCAL_KILLS, Evidence, LocalKill
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


def test_status_listeners_hear_each_word_of_the_server_and_each_failure(state: FlagState) -> None:
    heard: list[ClientStatus] = []
    remove = state.status_listeners.add(heard.append)
    state.lose_touch(is_refused=False)
    state.lose_touch(is_refused=True)
    state.apply_flags(flag_set(flag(), sequence=5))
    state.lose_touch(is_refused=True)
    state.apply_flags(flag_set(flag(), sequence=4))
    state.confirm()
    remove()
    state.confirm()
    assert heard == ["NOT_READY", "ERROR", "READY", "STALE", "READY", "READY"]


def test_no_listener_delays_what_is_urgent_and_the_status_comes_before_the_change(
    state: FlagState,
) -> None:
    heard: list[str] = []
    state.on_urgent = lambda: heard.append("urgent")
    state.subscribe(lambda _: heard.append("change"))
    state.status_listeners.add(heard.append)
    state.apply_flags(flag_set(flag(), sequence=5))
    assert heard == ["urgent", "READY", "change"]


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


# --- held off by this process's own evidence ------------------------------------------------------


def kill(key: str = "new-checkout", version: int = 1, name: str = "local-1") -> LocalKill:
    evidence = Evidence(key, version, "default", "on", "off", "error:Boom", 16.5, 15.4, 13, 0, 0.25)
    return LocalKill(name, "2026-11-27T12:00:00.000Z", evidence)


def held_off(state: FlagState) -> set[str]:
    off = {key for key, each in state.flag_set.flags.items() if each.killed}
    assert off == state.local_kills.keys()
    return off


def test_a_local_kill_serves_the_off_variant_and_says_why(state: FlagState) -> None:
    state.apply_flags(flag_set(flag(), flag("other"), sequence=5))
    opened = state.flag_set
    assert state.kill_locally(kill())
    details = evaluate(state.flag_set, "new-checkout", True, {"targetingKey": "u"})
    assert (details.value, details.variant, details.reason) == (False, "off", "DISABLED")
    assert details.flag_metadata == {
        "version": 1, "killed_by": "local", "kill_reason": kill().reason,
    }  # fmt: skip
    assert held_off(state) == {"new-checkout"}
    assert state.flag_set.sequence == 5
    assert not opened.flags["new-checkout"].killed, "scopes that are open see what they began with"
    assert state.document == flag_set(flag(), flag("other"), sequence=5), "the server's word"
    assert not state.kill_locally(kill(name="again"))


@pytest.mark.parametrize(
    ("held", "killed"),
    [(flag(version=2), kill()), (flag(), kill("gone")), (flag(killed=True), kill())],
    ids=["another version", "no such flag", "killed by the server"],
)
def test_what_is_not_served_cannot_be_held_off(
    state: FlagState, held: dict[str, Any], killed: LocalKill
) -> None:
    assert not state.kill_locally(killed)
    state.apply_flags(flag_set(held, sequence=5))
    assert not state.kill_locally(killed)
    assert state.local_kills == {}


@pytest.mark.parametrize("is_whole", [True, False], ids=["a flag set", "one flag"])
@pytest.mark.parametrize(
    "later",
    [flag(version=2), flag(version=2, killed=True), None],
    ids=["changed", "killed", "gone"],
)
def test_the_servers_later_word_is_final(
    state: FlagState, later: dict[str, Any] | None, is_whole: bool
) -> None:
    urgent: list[str] = []
    state.apply_flags(flag_set(flag(), sequence=5))
    state.kill_locally(kill())
    state.on_urgent = lambda: urgent.append("urgent")
    if is_whole:
        state.apply_flags(flag_set(*[] if later is None else [later], sequence=6))
    else:
        state.apply_flag(change(6, "new-checkout", later))
    assert state.local_kills == {}
    now = state.flag_set.flags.get("new-checkout")
    is_killed = later is not None and later["kill"] is not None
    assert (now is not None and now.killed) == is_killed
    assert bool(urgent) == is_killed, "the server's kill is new, though the flag was off"


def test_what_the_server_says_of_the_same_version_leaves_it_off(state: FlagState) -> None:
    state.apply_flags(flag_set(flag(), sequence=5))
    state.kill_locally(kill())
    seen: list[bool] = []
    state.subscribe(lambda _: seen.append(state.flag_set.flags["new-checkout"].killed))
    state.apply_flag(change(6, "other", flag("other")))
    state.apply_flags(flag_set(flag(), flag("third"), sequence=7))
    state.apply_flag(change(8, "new-checkout", flag()))
    assert held_off(state) == {"new-checkout"}
    assert seen == [True, True, True]


def test_readers_never_see_it_on_in_between(state: FlagState) -> None:
    """While whole flag sets come in, whoever looks finds it off."""
    state.apply_flags(flag_set(flag(), sequence=5))
    state.kill_locally(kill())
    done, on = threading.Event(), []

    def look() -> None:
        while not done.is_set():
            if not state.flag_set.flags["new-checkout"].killed:
                on.append(state.flag_set.sequence)

    thread = threading.Thread(target=look)
    thread.start()
    for sequence in range(6, 300):
        state.apply_flags(flag_set(flag(), flag(f"flag-{sequence}"), sequence=sequence))
    done.set()
    thread.join()
    assert on == []


def test_the_server_lifts_what_it_names_and_nothing_else(state: FlagState) -> None:
    state.apply_flags(flag_set(flag(), flag("other"), sequence=5))
    state.kill_locally(kill())
    state.kill_locally(kill("other", name="local-2"))
    assert not state.lift(["local-9"])
    assert state.lift(["local-1"])
    assert held_off(state) == {"other"}
    assert list(state.lifted) == ["local-9", "local-1"]


def test_listeners_and_the_log_hear_of_it_on_a_thread_of_the_clients(
    state: FlagState, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[FlagsChanged] = []
    state.apply_flags(flag_set(flag(), sequence=5))
    state.subscribe(heard.append)
    state.kill_locally(kill())
    assert heard == [], "not on the thread of the request that failed"
    state.tell_local()
    state.tell_local()
    assert heard == [FlagsChanged(frozenset({"new-checkout"}), 5)]
    (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert record.getMessage() == (
        "Flag new-checkout is off in this process by its own errors: 13 of 13 units with "
        "error:Boom had 'on' (by chance 25% of them would); log E is 16.5, needed 15.4"
    )
    state.lift(["local-1"])
    state.tell_local()
    assert len(heard) == 2


def test_a_forked_child_keeps_what_is_held_off_and_tells_nobody_again(state: FlagState) -> None:
    heard: list[FlagsChanged] = []
    state.apply_flags(flag_set(flag(), sequence=5))
    state.kill_locally(kill())
    state.subscribe(heard.append)
    state.after_fork()
    state.tell_local()
    assert heard == []
    assert held_off(state) == {"new-checkout"}


def test_a_fork_between_the_decision_and_the_swap_is_made_good(state: FlagState) -> None:
    state.apply_flags(flag_set(flag(), sequence=5))
    state.local_kills = {"new-checkout": kill()}
    state.after_fork()
    assert held_off(state) == {"new-checkout"}


def test_what_was_held_off_when_it_was_kept_starts_off(state: FlagState) -> None:
    state.preload(flag_set(flag(), sequence=5), True, [kill(), kill("gone", name="local-2")])
    assert held_off(state) == {"new-checkout"}
    state.apply_flags(flag_set(flag(), sequence=5))
    assert held_off(state) == {"new-checkout"}


def test_how_many_are_held_off_is_bounded(state: FlagState) -> None:
    keys = [f"flag-{number}" for number in range(MAX_LOCAL_KILLS + 1)]
    state.apply_flags(flag_set(*map(flag, keys), sequence=5))
    assert sum(state.kill_locally(kill(key, name=key)) for key in keys) == MAX_LOCAL_KILLS
