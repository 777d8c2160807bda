"""What is compiled, and when."""

import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from flagd_sdk.core.parsing import parse_flag_set
from flagd_server.services import evaluation
from flagd_server.services.evaluation import Evaluation
from flagd_server.services.snapshots import Parts, encode


class Held:
    """Snapshots that tests move on by hand."""

    def __init__(self, flags: Mapping[str, bool]) -> None:
        encoded = {key: flag(key, value) for key, value in flags.items()}
        self.held = Parts("production", 1, "0" * 32, encoded, b"{}")

    def parts(self, environment: str) -> Parts:
        assert environment == "production"
        return self.held

    def set(self, key: str, value: bool | None) -> None:
        flags = dict(self.held.flags)
        if value is None:
            del flags[key]
        else:
            flags[key] = flag(key, value)
        self.held = replace(self.held, sequence=self.held.sequence + 1, flags=flags)


def flag(key: str, value: bool) -> bytes:
    return encode(
        {
            "key": key,
            "version": 1,
            "enabled": True,
            "type": "boolean",
            "variants": {"on": True, "off": False},
            "off_variant": "off",
            "default_serve": {"variant": "on" if value else "off"},
        }
    )


@pytest.fixture
def compiled_whole(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note each whole flag set that is compiled."""
    seen: list[object] = []

    def parse(document: object) -> object:
        seen.append(document)
        return parse_flag_set(document)

    monkeypatch.setattr(evaluation, "parse_flag_set", parse)
    return seen


def values(evaluates: Evaluation) -> dict[str, bool]:
    return {d.flag_key: d.value for d in evaluates.evaluate_all("production", {})}


def test_a_flag_set_is_compiled_once_and_then_flag_by_flag(compiled_whole: list[object]) -> None:
    snapshots = Held({"a": True, "b": False})
    evaluates = Evaluation(snapshots)  # type: ignore[arg-type]
    assert compiled_whole == []
    for _ in range(3):
        assert values(evaluates) == {"a": True, "b": False}
    snapshots.set("b", True)
    snapshots.set("c", True)
    snapshots.set("a", None)
    assert values(evaluates) == {"b": True, "c": True}
    assert evaluates.evaluate("production", "c", {}).value is True
    assert len(compiled_whole) == 1


def test_it_is_compiled_whole_where_much_or_a_segment_changed(
    compiled_whole: list[object],
) -> None:
    snapshots = Held({f"f{n}": True for n in range(40)})
    evaluates = Evaluation(snapshots)  # type: ignore[arg-type]
    values(evaluates)
    for number in range(40):
        snapshots.set(f"f{number}", False)
    assert not any(values(evaluates).values())
    assert len(compiled_whole) == 2
    snapshots.held = replace(snapshots.held, sequence=99, segments=b'{"beta":{"all":[]}}')
    values(evaluates)
    assert len(compiled_whole) == 3


def test_many_threads_compile_it_once_and_none_gets_an_older_one(
    compiled_whole: list[object],
) -> None:
    snapshots = Held({"a": False})
    evaluates = Evaluation(snapshots)  # type: ignore[arg-type]
    start = threading.Barrier(8)
    stale: list[int] = []

    def ask() -> None:
        start.wait()
        for _ in range(200):
            published = snapshots.held
            if len(values(evaluates)) < len(published.flags):
                stale.append(len(published.flags))

    threads = [threading.Thread(target=ask) for _ in range(7)]
    for thread in threads:
        thread.start()
    start.wait()
    for number in range(50):
        snapshots.set(f"f{number}", True)
    for thread in threads:
        thread.join()
    assert stale == []
    assert len(values(evaluates)) == 51
    assert len(compiled_whole) <= 4  # once, and again where more than a few changes had gathered
