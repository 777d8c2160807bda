"""`FlagClient.on_evaluation`: who is told of what, and that nobody is hurt by it."""

import gc
import logging
import weakref
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from flagd_sdk import ErrorCode, Evaluation, FlagClient, Reason
from flagd_sdk.flag_state import FlagState
from flagd_sdk.notices import Notices
from tests.sdk.fakes import SilentTransport, flag, flag_set, text_flag

CONTEXT = {"targetingKey": "u1"}


def dependent() -> dict[str, Any]:
    """Return a flag that is on where the flag "on" is."""
    condition = {"flag": "on", "variants": ["on"]}
    rule = {"id": "r", "condition": condition, "serve": {"variant": "on"}}
    return {**flag("dependent", on=0), "rules": [rule]}


@pytest.fixture
def flags() -> Iterator[FlagClient]:
    document = flag_set(flag("on", on=100_000, version=7), text_flag(), dependent(), sequence=5)
    with FlagClient(
        "http://server", "t", transport=SilentTransport(), cache_dir=None, bootstrap=document
    ) as client:
        yield client


@pytest.fixture
def heard(flags: FlagClient) -> list[Evaluation]:
    told: list[Evaluation] = []
    flags.on_evaluation(told.append)
    return told


def keys(heard: list[Evaluation]) -> list[str]:
    return [evaluation.details.flag_key for evaluation in heard]


def test_an_exposure_is_told_once_with_all_that_is_known(
    flags: FlagClient, heard: list[Evaluation]
) -> None:
    with flags.scope(CONTEXT):
        for _ in range(3):
            assert flags.is_enabled("on") is True
            assert flags.value("on", False) is True
            assert flags.details("on", False).variant == "on"
    (told,) = heard
    assert told.details == ("on", True, "on", Reason.STATIC, None, None, {"version": 7})
    assert told.context is CONTEXT
    assert told.environment == "production"


def test_each_scope_is_an_exposure_of_its_own(flags: FlagClient, heard: list[Evaluation]) -> None:
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
        with flags.scope({"targetingKey": "u2"}):
            flags.is_enabled("on")
            assert flags.value("colour", "") == "green"
        flags.is_enabled("on")
    assert [told.context["targetingKey"] for told in heard] == ["u1", "u2", "u2"]
    assert keys(heard) == ["on", "on", "colour"]


def test_prerequisites_and_all_flags_are_not_told(
    flags: FlagClient, heard: list[Evaluation]
) -> None:
    with flags.scope(CONTEXT):
        assert flags.is_enabled("dependent") is True
        assert len(flags.all_flags()) == 3
    assert keys(heard) == ["dependent"]


def test_unscoped_evaluations_are_told_each(flags: FlagClient, heard: list[Evaluation]) -> None:
    flags.is_enabled("on")
    flags.is_enabled("on")
    with flags.scope(CONTEXT):
        flags.is_enabled("on", context={"targetingKey": "u9"})
    assert [told.context for told in heard] == [{}, {}, {"targetingKey": "u9"}]


def test_an_error_is_told_with_the_value_that_the_caller_got(
    flags: FlagClient, heard: list[Evaluation]
) -> None:
    with flags.scope(CONTEXT):
        assert flags.is_enabled("absent", True) is True
        assert flags.value("colour", 3) == 3
        assert flags.value("colour", "") == "green"
        assert flags.value("colour", 3) == 3
    assert [(told.details.value, told.details.error_code) for told in heard] == [
        (True, ErrorCode.FLAG_NOT_FOUND),
        (3, ErrorCode.TYPE_MISMATCH),
        ("green", None),
        (3, ErrorCode.TYPE_MISMATCH),
    ]


def test_what_is_heard_counts_as_before(flags: FlagClient, heard: list[Evaluation]) -> None:
    for _ in range(2):
        with flags.scope(CONTEXT) as scope:
            flags.is_enabled("on")
            flags.is_enabled("on")
            assert list(scope.served) == ["on"]
    assert flags.flush(60)
    transport = flags._engine._transport
    assert isinstance(transport, SilentTransport)
    cells = [cell for summary in transport.summaries for cell in summary["cells"]]
    assert sum(cell["exposures"] for cell in cells) == 2
    assert len(heard) == 2


def test_a_listener_that_raises_is_logged_and_hurts_nobody(
    flags: FlagClient, heard: list[Evaluation], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(evaluation: Evaluation) -> None:
        raise RuntimeError("no")

    flags.on_evaluation(broken)
    after: list[Evaluation] = []
    flags.on_evaluation(after.append)
    with caplog.at_level(logging.WARNING, "flagd_sdk"), flags.scope(CONTEXT):
        assert flags.is_enabled("on") is True
        assert flags.value("colour", "") == "green"
    assert keys(heard) == keys(after) == ["on", "colour"]
    # Beside it stands, at any moment, what the client's own thread tells of its server.
    told = [each for each in caplog.messages if "listener" in each]
    assert len(told) == 1, "told once"
    assert "broken raised" in told[0]


def test_a_listener_may_ask_for_flags_itself_and_is_not_told_of_that(flags: FlagClient) -> None:
    told: list[str] = []

    def curious(evaluation: Evaluation) -> None:
        told.append(evaluation.details.flag_key)
        assert flags.is_enabled("on") is True

    flags.on_evaluation(curious)
    flags.value("colour", "")
    with flags.scope(CONTEXT):
        flags.value("colour", "")
    assert told == ["colour", "colour"]


def test_who_ends_it_is_told_no_more(flags: FlagClient) -> None:
    told: list[Evaluation] = []
    end = flags.on_evaluation(told.append)
    end()
    end()
    with flags.scope(CONTEXT):
        assert flags.is_enabled("on") is True
    flags.is_enabled("on")
    assert told == []


def test_flag_sets_that_come_later_are_heard_too_and_quick_once_nobody_listens() -> None:
    told: list[Evaluation] = []
    later = {"sequence": 6, "key": "on", "flag": flag("on", on=100_000, version=8)}
    state = FlagState(Notices(monotonic))
    end = state.hear(told.append)
    state.apply_flags(flag_set(flag("on", on=100_000, version=7), sequence=5))
    assert not state.flag_set.resolvers
    state.apply_flag(later)
    assert not state.flag_set.resolvers
    assert state.flag_set.resolve("on", CONTEXT).version == 8
    end()
    state.apply_flag({**later, "sequence": 7})
    assert list(state.flag_set.resolvers) == ["on"]


def test_a_heard_client_that_nobody_holds_ends_at_once() -> None:
    client = FlagClient("http://server", "t", transport=SilentTransport(), cache_dir=None)
    client.on_evaluation(lambda evaluation: None)
    held, engine = weakref.ref(client), client._engine
    gc.disable()
    try:
        del client
        assert held() is None, "no cycle waits for the collector"
    finally:
        gc.enable()
    assert engine.close(60), "lest its threads log into another test"
