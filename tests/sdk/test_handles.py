import gc
import logging
import weakref
from typing import Any

import pytest

from flagd_sdk import ConfigurationError, FlagClient, Reason
from flagd_sdk.flag_state import FlagState
from flagd_sdk.handles import Declared
from flagd_sdk.notices import Notices
from tests.sdk.fakes import SilentTransport, flag, flag_set, text_flag


def client(*flags: dict[str, Any]) -> FlagClient:
    return FlagClient(
        "http://server",
        "t",
        bootstrap=flag_set(*flags) if flags else None,
        cache_dir=None,
        transport=SilentTransport(),
    )


def value_flag(key: str, kind: str, value: object) -> dict[str, Any]:
    return {**text_flag(key), "type": kind, "variants": {"a": value, "b": value}}


def test_a_handle_answers_as_the_client_does() -> None:
    document = flag("on", on=100_000), text_flag(), value_flag("ratio", "integer", 2)
    with client(*document, value_flag("limits", "object", {"cart": 9})) as flags:
        on = flags.boolean("on", default=False)
        colour = flags.string("colour", default="red")
        ratio = flags.float("ratio", default=1)
        limits = flags.object("limits", default={"cart": 1})
        with flags.scope({"targetingKey": "u1"}) as scope:
            assert (on.is_enabled(), on.value(), colour.value()) == (True, True, "green")
            assert (ratio.value(), type(ratio.value())) == (2.0, float)
            assert limits.value() == {"cart": 9}
            assert on.details().reason is Reason.STATIC
            assert sorted(scope.served) == ["colour", "limits", "on", "ratio"]
        assert on.is_enabled({"targetingKey": "u2"}) is True


def test_a_handle_serves_its_default_where_there_is_nothing_else() -> None:
    with client() as flags:
        assert flags.boolean("on", default=True).is_enabled() is True
        assert flags.integer("count", default=7).value() == 7
        assert type(flags.float("ratio", default=1).value()) is float
        limits = flags.object("limits", default={"cart": [1]})
        limits.value()["cart"].append(2)
        assert limits.details().value == {"cart": [1]}, "the default is everybody's"


def test_a_handle_makes_a_path_with_its_own_default() -> None:
    with client() as flags:
        on = flags.boolean("unknown", default=True)

        @on.when(otherwise=lambda: "old")
        def new() -> str:
            return "new"

        assert new() == "new"
        assert repr(on) == "<BooleanFlag unknown default=True>"


def test_a_declaration_that_contradicts_itself_is_told_where_it_is_written() -> None:
    with client() as flags:
        for declare, default in (
            (flags.boolean, 1),
            (flags.boolean, None),
            (flags.string, 1),
            (flags.integer, True),
            (flags.integer, 1.0),
            (flags.float, "1"),
            (flags.float, float("nan")),
            (flags.object, "{}"),
            (flags.object, {1: 2}),
        ):
            with pytest.raises(ConfigurationError, match=r"^flag f: default: .*; expected"):
                declare("f", default=default)  # type: ignore[arg-type,operator]
        for key in ("", None, 7):
            with pytest.raises(ConfigurationError, match="expected a key"):
                flags.boolean(key, default=True)  # type: ignore[arg-type]


def test_two_declarations_of_a_flag_must_agree() -> None:
    with client() as flags:
        flags.integer("count", default=1)
        flags.integer("count", default=1)
        with pytest.raises(ConfigurationError, match="declared as integer with the default 2, and"):
            flags.integer("count", default=2)
        with pytest.raises(ConfigurationError, match="elsewhere as integer with 1"):
            flags.float("count", default=1)


def test_what_the_server_knows_otherwise_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flagd_sdk")
    notices = Notices(lambda: 0.0)
    state = FlagState(notices)
    declared = Declared(state, notices)
    declared.add("colour", "string", "red")
    declared.add("count", "float", 1.0)
    declared.add("gone", "boolean", True)
    declared.add("on", "string", "on")
    assert caplog.messages == [], "nothing is known yet"
    flags = flag("on"), text_flag(), value_flag("count", "integer", 1)
    for sequence in (1, 2):
        state.apply_flags(flag_set(*flags, sequence=sequence))
    assert caplog.messages == [
        "Flag gone is declared, but does not exist: its default is served",
        "Flag on is declared as string, but is of type boolean: its default is served",
    ]
    caplog.clear()
    declared.add("late", "boolean", True)
    change = {"sequence": 3, "key": "colour", "flag": flag("colour")}
    assert state.apply_flag(change)
    assert caplog.messages == [
        "Flag late is declared, but does not exist: its default is served",
        "Flag colour is declared as string, but is of type boolean: its default is served",
    ]


def test_a_client_checks_what_is_declared_on_it(caplog: pytest.LogCaptureFixture) -> None:
    with client(text_flag()) as flags:
        flags.boolean("colour", default=False)
    assert any("colour is declared as boolean" in message for message in caplog.messages)


def test_a_declaration_does_not_keep_its_client_alive() -> None:
    flags = client()
    flags.boolean("on", default=True)
    gone, engine = weakref.ref(flags), flags._engine
    del flags
    gc.collect()
    assert gone() is None
    assert engine.close(60), "lest its threads log into another test"
