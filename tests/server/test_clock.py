"""The clock of this machine."""

from datetime import UTC, datetime

from flagd_server.clock import SystemClock
from flagd_server.domain.times import format_time, parse_time


def test_it_tells_the_time_in_utc_as_records_keep_it() -> None:
    clock = SystemClock()
    before = datetime.now(UTC).timestamp()
    now, now_ms = clock.now(), clock.now_ms()
    after = datetime.now(UTC).timestamp()
    assert before - 0.001 <= now.timestamp() <= after
    assert int(before * 1000) <= now_ms <= after * 1000
    assert parse_time(format_time(now)) == now
