"""What the stream's logic makes of a server that means ill, on a clock that the test moves."""

import json
from pathlib import Path

import pytest

from flagd_sdk.errors import StatusError
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.notices import Notices
from tests.sdk.fakes import flag, flag_set, sse
from tests.sdk.test_streaming import KILLED, Bench, change


@pytest.mark.parametrize("depth", [100, 200, 300, 450, 600, 900, 990, 5_000])
@pytest.mark.parametrize("place", ["variants", "rules", "later"])
def test_however_deeply_a_change_is_nested_it_is_taken_or_refused(
    depth: int, place: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    bench = Bench()
    bench.config = bench.config._replace(max_flag_set_bytes=1_000_000)
    lists = "[" * depth + "]" * depth
    condition = '{"not":' * depth + '{"all": []}' + "}" * depth
    nested = {
        "variants": f'{{"on": {{"a": {lists}}}, "off": {{}}}}',
        "rules": f'[{{"id": "r", "condition": {condition}, "serve": {{"variant": "on"}}}}]',
        "later": lists,
    }
    document = {**flag(version=2), "type": "object" if place == "variants" else "boolean"}
    text = json.dumps({**document, place: "@"}).replace('"@"', nested[place])
    raw = f'event: flag\ndata: {{"sequence": 6, "key": "new-checkout", "flag": {text}}}\n\n'
    bench.serve(flag_set(flag(), sequence=5), flag_set(flag(version=3), sequence=7))
    bench.offer(raw.encode())
    bench.step()
    assert bench.sequence == (6 if depth <= 100 else bench.sequence)
    kept = FlagCache(bench.config._replace(cache_dir=tmp_path), Notices(bench.clock))
    assert bench.state.document is not None
    assert kept.save(bench.state.document, bench.sequence)
    bench.step()
    bench.clock.advance(20.0)
    bench.step()
    assert bench.sequence == 7
    assert not [record for record in caplog.records if record.exc_info]


def test_an_event_cut_after_any_byte_has_no_effect() -> None:
    for raw in (change(6, KILLED), sse("flags", flag_set(KILLED, sequence=6), 6)):
        for length in range(len(raw)):
            bench = Bench()
            bench.serve(flag_set(flag(), sequence=5))
            bench.offer(raw[:length])
            bench.step()
            assert bench.sequence == 5
            assert not bench.state.flag_set.flags["new-checkout"].killed


def test_an_event_that_drips_is_given_up_as_a_silent_stream_is() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5))
    stream = bench.offer()
    raw = iter(change(6, KILLED))
    began_at = bench.clock.now_s

    def drip() -> bytes:
        bench.clock.advance(1.0)
        return bytes([next(raw)])

    stream.read = drip  # type: ignore[method-assign]
    bench.stream.step()
    assert 30.0 <= bench.clock.now_s - began_at <= 40.0
    assert bench.sequence == 5


def test_a_stream_of_heartbeats_is_never_given_up() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5))
    stream = bench.offer()
    beats = iter([b": hb\n\n"] * 500)

    def beat() -> bytes:
        bench.clock.advance(15.0)
        return next(beats, b"")

    stream.read = beat  # type: ignore[method-assign]
    bench.stream.step()
    assert next(beats, None) is None


def test_flags_of_another_environment_are_refused() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5), {**flag_set(sequence=9), "environment": "staging"})
    bench.offer(sse("flags", {**flag_set(sequence=8), "environment": "staging"}, 8))
    bench.step()
    bench.step()
    assert bench.sequence == 5
    assert "new-checkout" in bench.state.flag_set.flags


def test_after_an_hour_of_refusals_it_is_back_within_the_time_of_any_other_outage() -> None:
    for random in (0.0, 0.5, 0.999):
        bench = Bench(random)
        bench.serve(flag_set(flag(), sequence=5))
        bench.step()
        ends_at = bench.clock.now_s + 3_600.0
        while bench.clock.now_s < ends_at:
            bench.serve(StatusError(401))
            bench.transport.streams.append(StatusError(401))
            bench.step()
        bench.transport.fetches.clear()
        bench.transport.streams.clear()
        bench.serve(flag_set(flag(version=2), sequence=6))
        while bench.sequence == 5:
            bench.step()
        assert bench.clock.now_s - ends_at <= 35.0
