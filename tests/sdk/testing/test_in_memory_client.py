# ruff: noqa: PT012 - what is raised must leave the scope, so the scope is in the block
import json
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from flagd_sdk import ClientStatus, ConfigurationError, FlagClient, FlagsChanged, Reason
from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import (
    FlagNotFoundError,
    InvalidContextError,
    TypeMismatchError,
)
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.notices import Notices
from flagd_sdk.testing import Definition, Exposure, InMemoryClient, offline
from tests.sdk.fakes import flag, flag_set, text_flag

VALUES: dict[str, Any] = {
    "on": True,
    "off": False,
    "count": 7,
    "ratio": 0.5,
    "colour": "red",
    "limits": {"cart": 9},
    "steps": [1, 2],
}
NL = {"attribute": "country", "op": "in", "values": ["NL"]}
ITSELF = {"flag": "f", "variants": ["on"]}


def test_plain_values_are_served_with_the_types_they_have() -> None:
    flags = InMemoryClient(VALUES)
    assert {key: details.value for key, details in flags.all_flags().items()} == VALUES
    assert (flags.is_enabled("on"), flags.is_enabled("off", True)) == (True, False)
    assert flags.value("ratio", 1.0) == 0.5
    assert flags.details("on", False).variant == "on"
    assert flags.details("count", "text").error_code == "TYPE_MISMATCH"
    assert flags.details("unknown", "default").value == "default"
    assert flags.status is ClientStatus.READY
    assert flags.wait_until_ready(0)


def test_it_starts_no_thread_and_leaves_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    before = set(threading.enumerate())
    with InMemoryClient({"on": True}) as flags:
        with flags.scope({"targetingKey": "u1"}):
            assert flags.is_enabled("on")
        assert flags.flush(0)
        assert set(threading.enumerate()) <= before
    assert flags.is_enabled("on")
    assert list(tmp_path.iterdir()) == []


def test_a_definition_has_rules_and_splits_with_what_is_missing_filled_in() -> None:
    split = {"split": {"weights": {"on": 30_000, "off": 70_000}}}
    flags = InMemoryClient(
        {
            "targeted": Definition(rules=[{"condition": NL, "serve": {"variant": "on"}}]),
            "split": Definition(default_serve=split),
            "off": Definition(default_serve={"variant": "on"}, enabled=False),
            "sizes": Definition(variants={"s": 1, "l": 3}, default_serve={"variant": "l"}),
        }
    )
    details = flags.details("targeted", False, {"country": "NL"})
    assert (details.value, details.reason) == (True, Reason.TARGETING_MATCH)
    assert flags.is_enabled("targeted", context={"country": "BE"}) is False
    assert flags.details("off", True).reason is Reason.DISABLED
    assert flags.value("sizes", 0) == 3
    users = [{"targetingKey": f"u{number}"} for number in range(2_000)]
    share = sum(flags.is_enabled("split", context=user) for user in users) / len(users)
    assert 0.25 < share < 0.35


def test_a_split_places_users_as_the_server_would() -> None:
    served = flag("new-checkout", on=25_000)
    ours = InMemoryClient(
        {
            "new-checkout": Definition(
                default_serve={"split": {"weights": {"on": 25_000, "off": 75_000}}}
            )
        }
    )
    theirs = InMemoryClient(bootstrap=flag_set(served))
    for number in range(200):
        user = {"targetingKey": f"u{number}"}
        assert ours.is_enabled("new-checkout", False, user) == theirs.is_enabled(
            "new-checkout", False, user
        )


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (object(), "a value of type object; expected a boolean"),
        (float("nan"), "expected a finite number"),
        (Definition(variants={}), "variants: an object"),
        (Definition(variants=7), "variants: 7"),
        (Definition(type="text"), "type: 'text'"),
        (Definition(rules=[{"condition": {"op": "?"}, "serve": {"variant": "on"}}]), r"rules\[0\]"),
        (Definition(rules=[7]), r"rules\[0\]"),
        (Definition(default_serve={"split": {"weights": {"on": 1}}}), "allocation: ends at 1"),
        (Definition(rules=[{"condition": ITSELF, "serve": {"variant": "on"}}]), "cycle"),
    ],
)  # fmt: skip
def test_what_can_be_no_flag_is_told_at_once_and_changes_nothing(value: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^flag f: .*{fault}"):
        InMemoryClient({"f": value})
    flags = InMemoryClient({"f": True})
    with pytest.raises(ConfigurationError):
        flags.set_flags({"f": value})
    assert flags.is_enabled("f") is True


def test_a_whole_flag_set_can_be_put_under_the_values(tmp_path: Path) -> None:
    document = flag_set(flag("on", on=100_000), text_flag(), sequence=9)
    document["segments"] = {"dutch": NL}
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(document))
    rule = {"condition": {"segment": "dutch"}, "serve": {"variant": "on"}}
    flags = InMemoryClient({"colour": "red", "nl": Definition(rules=[rule])}, bootstrap=path)
    assert (flags.is_enabled("on"), flags.value("colour", "")) == (True, "red")
    assert flags.is_enabled("nl", context={"country": "NL"})


def test_flags_are_set_and_removed_while_it_is_used() -> None:
    flags = InMemoryClient({"on": True, "gone": True})
    checkout = flags.boolean("on", default=False)
    heard: list[FlagsChanged] = []
    flags.on_change(heard.append)
    with flags.scope({"targetingKey": "u1"}):
        flags.set_flags({checkout: False, "gone": None, "new": "x"})
        assert flags.is_enabled("on"), "an open unit of work keeps its flags"
    assert not flags.is_enabled("on")
    assert flags.details("gone", True).error_code == "FLAG_NOT_FOUND"
    assert flags.value("new", "") == "x"
    assert [event.keys for event in heard] == [{"on", "gone", "new"}]
    assert checkout.is_enabled() is False


def test_what_was_served_is_kept_with_its_outcome() -> None:
    flags = InMemoryClient({"on": True, "colour": "red", "other": True})
    with flags.scope({"targetingKey": "u1"}):
        flags.is_enabled("on")
        flags.value("colour", "")
        flags.is_enabled("on")
    with pytest.raises(KeyError), flags.scope({"targetingKey": "u2"}):
        flags.is_enabled("on")
        flags.is_enabled("other")
        flags.fail("slow", flag="other")
        raise KeyError
    with flags.scope():
        flags.is_enabled("unknown")
    flags.is_enabled("on")
    flags.is_enabled("on", context={})
    with flags.scope():
        flags.is_enabled("on")
        assert len(flags.exposures) == 4, "one that is open has no outcome yet"
    assert flags.exposures == [
        Exposure("on", "on", True, Reason.STATIC, "u1", ()),
        Exposure("colour", "value", "red", Reason.STATIC, "u1", ()),
        Exposure("on", "on", True, Reason.STATIC, "u2", ("error:KeyError",)),
        Exposure("other", "on", True, Reason.STATIC, "u2", ("error:slow", "error:KeyError")),
        Exposure("on", "on", True, Reason.STATIC, None, ()),
    ]
    assert flags.unscoped == ["on", "on"]


def test_a_strict_one_raises_where_production_serves_the_default() -> None:
    flags = InMemoryClient({"on": True, "colour": "red"}, strict=True)
    assert flags.is_enabled("on")
    for scope in (flags.scope({}), flags.scope({})):
        with pytest.raises(FlagNotFoundError, match="flag unknown: there is no flag 'unknown'"):
            flags.is_enabled("unknown")
        with scope, pytest.raises(TypeMismatchError, match="flag colour: the flag is of type"):
            flags.value("colour", 7)
        with pytest.raises(TypeMismatchError):
            flags.is_enabled("colour", context={})
    with pytest.raises(InvalidContextError):
        flags.details("on", False, 7)  # type: ignore[arg-type]


def test_a_client_made_offline_stays_in_memory_for_life(tmp_path: Path) -> None:
    url = "https://flags.example.com"
    config = ClientConfig(url=url, token="t", cache_dir=tmp_path)
    assert FlagCache(config, Notices(monotonic)).save(flag_set(flag("kept", on=100_000)), 1)
    kept = sorted(tmp_path.rglob("*"))
    before = set(threading.enumerate())
    with offline():
        flags = FlagClient(url, "t", cache_dir=tmp_path, bootstrap=flag_set(text_flag()))
    assert flags.value("colour", "") == "green"
    assert flags.is_enabled("kept") is False, "the last run's flags are on disk"
    with flags.scope({}):
        assert flags.is_enabled("unknown", True)
    assert flags.flush(0)
    assert set(threading.enumerate()) <= before
    assert sorted(tmp_path.rglob("*")) == kept
    with FlagClient("http://127.0.0.1:9", "t", cache_dir=None) as real:
        assert set(threading.enumerate()) - before
        assert real.status is ClientStatus.NOT_READY
