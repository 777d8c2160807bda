"""Which id a request gets."""

import re

import pytest

from flagd_server.request_id import choose

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_the_caller_s_own_comes_first_then_its_trace() -> None:
    assert choose("deploy-42", TRACEPARENT) == "deploy-42"
    assert choose(None, TRACEPARENT) == TRACE
    assert choose(None, f"cc-{TRACE}-00f067aa0ba902b7-01-what-comes-later") == TRACE


@pytest.mark.parametrize("given", ["", "a b", "a\nb", 'a"b', "é", "x" * 129])
def test_what_does_not_belong_in_a_log_is_not_taken(given: str) -> None:
    assert choose(given, TRACEPARENT) == TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        TRACE,
    ],
)
def test_without_either_one_is_made(traceparent: str) -> None:
    first, second = choose(None, traceparent), choose(None, traceparent)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second
