"""Initialisation, shutdown and events: sections 2.4, 2.5 and 5 of OpenFeature's specification."""

import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from openfeature import api
from openfeature.event import ProviderEvent
from openfeature.exception import ProviderFatalError, ProviderNotReadyError
from openfeature.provider import ProviderStatus

from flagd_sdk import Backoff, FlagClient, FlagsChanged
from flagd_sdk.errors import StatusError
from flagd_sdk.integrations.openfeature import FlagReleaseProvider
from tests.sdk.fakes import MemoryTransport, flag, flag_set
from tests.sdk.integrations.openfeature_world import (
    WITHIN_S,
    World,
    flag_client,
    serving,
    world_of,
)
from tests.waiting import eventually

READY = ProviderEvent.PROVIDER_READY
STALE = ProviderEvent.PROVIDER_STALE
ERROR = ProviderEvent.PROVIDER_ERROR
CHANGED = ProviderEvent.PROVIDER_CONFIGURATION_CHANGED
# A server that can't be reached is not tried again while a test runs.
ONLY_ONCE = Backoff(first_s=3600.0, floor_s=3600.0, cap_s=3600.0)


@pytest.fixture
def world() -> Iterator[World]:
    with world_of(flag("a", on=100_000), flag("b", on=100_000)) as world:
        # Each new handler hears at once of the state there is, that of the NoOpProvider.
        assert world.next_event()[0] is READY
        yield world


@pytest.fixture
def empty() -> Iterator[World]:
    """An application whose server is out of reach, with nothing on disk."""
    with flag_client(MemoryTransport(), backoff=ONLY_ONCE) as flags:
        # What the first attempt tells is not to come after what the test does.
        assert eventually(lambda: flags._engine.notices._standing)
        world = World(flags)
        assert world.next_event()[0] is READY
        try:
            yield world
        finally:
            api.shutdown()


def change(world: World, key: str, document: dict[str, Any] | None) -> None:
    sequence = world.state.flag_set.sequence + 1
    assert world.state.apply_flag({"sequence": sequence, "key": key, "flag": document})


def status() -> ProviderStatus:
    return api.get_client().get_provider_status()


# --- 2.4 initialisation -------------------------------------------------------------------------


def test_2_4_1_and_5_3_1_initialised_with_flags_it_is_ready(world: World) -> None:
    client = world.use(FlagReleaseProvider(world.flags))
    assert status() is ProviderStatus.READY
    assert world.next_event()[0] is READY
    assert client.get_boolean_value("a", False) is True
    assert world.has_silence()


def test_2_4_1_it_waits_for_the_first_flags_and_no_longer(empty: World) -> None:
    provider = FlagReleaseProvider(empty.flags, init_timeout_s=WITHIN_S)
    came = threading.Timer(0.05, empty.state.apply_flags, [flag_set(flag("a"), sequence=3)])
    came.start()
    api.set_provider_and_wait(provider)
    came.join()
    assert status() is ProviderStatus.READY
    assert empty.next_event()[0] is READY
    # To get the first flags is no change of configuration, however late their listeners are told.
    empty.state.change_listeners.tell(FlagsChanged(frozenset({"a"}), 3))
    assert empty.has_silence()


def test_2_4_2_1_and_5_3_2_without_flags_in_time_it_fails_and_says_so(empty: World) -> None:
    began = monotonic()
    with pytest.raises(ProviderNotReadyError, match=r"no flags have come.* for 0\.05 s"):
        api.set_provider_and_wait(FlagReleaseProvider(empty.flags, init_timeout_s=0.05))
    assert 0.05 <= monotonic() - began < WITHIN_S / 2
    assert status() is ProviderStatus.ERROR
    event, details = empty.next_event()
    assert (event, details.error_code) == (ERROR, "PROVIDER_NOT_READY")
    details_of_a = api.get_client().get_boolean_details("a", True)
    assert (details_of_a.value, details_of_a.error_code) == (True, "PROVIDER_NOT_READY")


def test_2_4_2_1_a_failed_initialisation_recovers_by_itself(empty: World) -> None:
    with pytest.raises(ProviderNotReadyError):
        api.set_provider_and_wait(FlagReleaseProvider(empty.flags, init_timeout_s=0.01))
    assert empty.next_event()[0] is ERROR
    empty.state.apply_flags(flag_set(flag("a", on=100_000), sequence=3))
    assert empty.next_event()[0] is READY
    assert status() is ProviderStatus.READY
    assert api.get_client().get_boolean_value("a", False) is True


def test_2_4_2_1_a_refused_token_is_fatal(empty: World) -> None:
    refused = threading.Timer(0.05, empty.state.lose_touch, [True])
    refused.start()
    began = monotonic()
    with pytest.raises(ProviderFatalError, match="refuses the token"):
        api.set_provider_and_wait(FlagReleaseProvider(empty.flags, init_timeout_s=WITHIN_S))
    assert monotonic() - began < WITHIN_S / 2
    refused.join()
    assert status() is ProviderStatus.FATAL
    assert empty.next_event()[1].error_code == "PROVIDER_FATAL"
    assert api.get_client().get_boolean_details("a", True).error_code == "PROVIDER_FATAL"
    # Even after an hour of 401: an operator may mend the token.
    empty.state.apply_flags(flag_set(flag("a", on=100_000), sequence=3))
    assert empty.next_event()[0] is READY
    assert api.get_client().get_boolean_value("a", False) is True


def test_2_4_2_1_a_refusal_before_is_not_waited_for() -> None:
    transport = MemoryTransport()
    transport.fetches.append(StatusError(401))
    with flag_client(transport, backoff=ONLY_ONCE) as flags:
        provider = FlagReleaseProvider(flags, init_timeout_s=WITHIN_S)
        while flags.status != "ERROR":
            threading.Event().wait(0.002)
        began = monotonic()
        with pytest.raises(ProviderFatalError):
            provider.initialize(api.get_evaluation_context())
        assert monotonic() - began < WITHIN_S / 2
        details = provider.resolve_boolean_details("a", True)
        assert (details.value, details.error_code) == (True, "PROVIDER_FATAL")
        provider.shutdown()


def test_2_4_2_1_a_client_that_can_not_be_made_is_fatal() -> None:
    provider = FlagReleaseProvider(lambda: FlagClient("ftp://server", "t"))
    try:
        with pytest.raises(ProviderFatalError, match="url: expected"):
            api.set_provider_and_wait(provider)
        assert status() is ProviderStatus.FATAL
    finally:
        api.shutdown()


def test_with_flags_from_disk_it_is_ready_at_once_and_then_stale(tmp_path: Path) -> None:
    with flag_client(serving(flag("a", on=100_000)), cache_dir=tmp_path) as flags:
        assert flags.wait_until_ready(WITHIN_S)
        assert flags.close(WITHIN_S)
    with flag_client(MemoryTransport(), cache_dir=tmp_path, backoff=ONLY_ONCE) as flags:
        assert eventually(lambda: flags._engine.notices._standing)
        world = World(flags)
        assert world.next_event()[0] is READY  # of the NoOpProvider
        try:
            began = monotonic()
            client = world.use(FlagReleaseProvider(flags, init_timeout_s=WITHIN_S))
            assert monotonic() - began < WITHIN_S / 2
            details = client.get_boolean_details("a", False)
            assert (details.value, details.reason) == (True, "STALE")
            assert world.next_event()[0] is READY
            world.state.lose_touch(is_refused=False)  # the next attempt fails as well
            assert world.next_event()[0] is STALE
            assert status() is ProviderStatus.STALE
        finally:
            api.shutdown()


# --- 2.5 shutdown -------------------------------------------------------------------------------


def test_2_5_1_shutdown_leaves_a_shared_client_open(world: World) -> None:
    with flag_client(serving(flag("a", on=100_000))) as flags:
        world.use(FlagReleaseProvider(flags))
        api.shutdown()
        assert flags.is_enabled("a") is True
        assert flags.flush(WITHIN_S)


def test_2_5_1_shutdown_closes_the_client_that_was_made_here() -> None:
    made: list[FlagClient] = []

    def make() -> FlagClient:
        made.append(flag_client(serving(flag("a", on=100_000))))
        return made[-1]

    provider = FlagReleaseProvider(make)
    assert made == []
    assert provider.resolve_boolean_details("a", True).error_code == "PROVIDER_NOT_READY"
    try:
        api.set_provider_and_wait(provider)
        assert api.get_client().get_boolean_value("a", False) is True
        api.shutdown()
        assert made[0]._engine.stream._stopping.is_set()
        # 2.5.2: back where it began, and it may be used again.
        assert provider.resolve_boolean_details("a", True).error_code == "PROVIDER_NOT_READY"
        api.set_provider_and_wait(provider)
        assert api.get_client().get_boolean_value("a", False) is True
        assert len(made) == 2
    finally:
        api.shutdown()


def test_2_5_2_after_shutdown_no_event_comes(world: World) -> None:
    provider = FlagReleaseProvider(world.flags)
    world.use(provider)
    assert world.next_event()[0] is READY
    provider.shutdown()
    world.state.lose_touch(is_refused=False)
    change(world, "a", None)
    assert world.has_silence()


def test_2_5_2_shutdown_may_be_called_at_any_time_and_again(world: World) -> None:
    provider = FlagReleaseProvider(world.flags)
    provider.shutdown()
    world.use(provider)
    provider.shutdown()
    provider.shutdown()


def test_initialised_twice_it_tells_each_event_once(world: World) -> None:
    provider = FlagReleaseProvider(world.flags)
    world.use(provider)
    assert world.next_event()[0] is READY
    provider.initialize(api.get_evaluation_context())
    change(world, "a", None)
    assert world.next_event()[0] is CHANGED
    assert world.has_silence()


# --- 5 events -----------------------------------------------------------------------------------


def test_5_1_1_a_change_names_its_flags_and_is_in_use(world: World) -> None:
    client = world.use(FlagReleaseProvider(world.flags))
    assert world.next_event()[0] is READY
    change(world, "a", flag("a", killed=True))
    event, details = world.next_event()
    assert (event, details.flags_changed) == (CHANGED, ["a"])
    assert details.metadata == {"sequence": 6}
    assert client.get_boolean_value("a", True) is False
    world.state.apply_flags(flag_set(flag("c"), sequence=9))
    assert world.next_event()[1].flags_changed == ["a", "b", "c"]
    assert status() is ProviderStatus.READY  # 5.3.5: a change leaves the status as it is


def test_5_1_1_and_5_3_5_out_of_touch_it_is_stale_and_then_ready_again(world: World) -> None:
    client = world.use(FlagReleaseProvider(world.flags))
    assert world.next_event()[0] is READY
    for _ in range(3):  # each failed attempt is told to the provider, the change alone to the SDK
        world.state.lose_touch(is_refused=False)
    event, details = world.next_event()
    assert (event, details.message) == (
        STALE,
        "the flag server is out of reach; the last known values stay in use",
    )
    assert status() is ProviderStatus.STALE
    assert client.get_boolean_value("a", False) is True
    for _ in range(3):
        world.state.confirm()
    assert world.next_event()[0] is READY
    assert status() is ProviderStatus.READY
    assert world.has_silence()


def test_5_1_2_and_5_1_3_handlers_run_for_their_own_provider_alone(world: World) -> None:
    heard: list[str] = []
    other = api.get_client("other")
    api.set_provider_and_wait(FlagReleaseProvider(world.flags), "own")
    api.get_client("own").add_handler(CHANGED, lambda _: heard.append("own"))
    other.add_handler(CHANGED, lambda _: heard.append("other"))
    change(world, "a", None)
    while world.next_event()[0] is not CHANGED:
        pass
    assert eventually(lambda: heard)  # handlers run in threads, in any order
    assert world.has_silence()
    assert heard == ["own"]


def test_5_1_4_and_5_1_5_an_error_has_a_message_and_a_code(empty: World) -> None:
    with pytest.raises(ProviderNotReadyError):
        api.set_provider_and_wait(FlagReleaseProvider(empty.flags, init_timeout_s=0.01))
    assert empty.next_event()[0] is ERROR
    empty.state.lose_touch(is_refused=True)
    event, details = empty.next_event()
    assert (event, details.error_code) == (ERROR, "PROVIDER_FATAL")
    assert details.message == "the flag server refuses the token, and no flags are known"
    empty.state.lose_touch(is_refused=False)
    event, details = empty.next_event()
    assert (event, details.error_code) == (ERROR, "PROVIDER_NOT_READY")


def test_5_2_3_an_event_names_the_provider(world: World) -> None:
    world.use(FlagReleaseProvider(world.flags))
    assert world.next_event()[1].provider_name == "flagd-release"


def test_an_event_that_the_sdk_takes_no_longer_harms_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    provider = FlagReleaseProvider(world.flags)
    world.use(provider)

    def closed(*_: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    provider.attach(closed)
    change(world, "a", None)
    assert caplog.text == ""
