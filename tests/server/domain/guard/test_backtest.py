import json
from collections.abc import Iterator
from typing import Any

import pytest

from flagd_sdk.core.guard.streams import LIFE_S
from flagd_server.domain.guard.backtest import backtest
from flagd_server.domain.guard.records import RecordError
from tests.server.domain.guard.recordings import unit

CONFIG = '{"config": {"alpha": 0.001, "margin": 1.05, "control": "off"}}'


def line(t: float, *, on: tuple[int, ...] = (), off: tuple[int, ...] = (), **more: Any) -> str:
    weights = {"on": 25_000, "off": 75_000}
    cells = [
        {
            "split": "default",
            "variant": variant,
            "weights": weights,
            "config_version": 7,
            "service": "shop",
            "service_version": "3f2c1ab",
            "instance": "i1",
            "exposures": exposures,
            "errors": len(failing),
            "units": {"error:KeyError": [unit(number) for number in failing]},
        }
        for variant, failing, exposures in (("on", on, 25), ("off", off, 75))
    ]
    return json.dumps({"t": t, "announced": None, "cells": cells, **more})


def answers(*lines: str) -> list[dict[str, Any]]:
    return [json.loads(answer) for answer in backtest(lines)]


def test_each_event_is_answered_with_one_line() -> None:
    found = answers(CONFIG, line(1.0), line(2.0, off=(1,)), line(3.0, on=(2,)))
    assert [answer["t"] for answer in found] == [1.0, 2.0, 3.0]
    assert found[0] == {
        "t": 1.0,
        "kill": False,
        "hold": False,
        "e_value": 1.0,
        "rate_witness": 1.0,
        "threshold": pytest.approx(1 / (0.7 * 0.001 * 0.3)),
        "stream": "errors, life",
        "ratio": 1.0,
        "reason": "no unit has failed yet",
        "split": "default",
        "treatment": "on",
        "control": "off",
        "guard": "error_rate",
        "blind": ["too few events"],
    }


def test_a_fault_is_found_and_stays_found() -> None:
    found = answers(
        CONFIG,
        *(line(float(t), on=(t,)) for t in range(12)),
        line(100.0, off=tuple(range(100, 170))),
    )
    assert [answer["kill"] for answer in found].index(True) <= 11
    assert found[-1]["kill"] is True
    assert found[-1]["t"] == 100.0


def test_it_answers_before_it_reads_on() -> None:
    def lines() -> Iterator[str]:
        yield CONFIG
        yield line(1.0)
        pytest.fail("read ahead")

    assert json.loads(next(backtest(lines())))["t"] == 1.0


def test_empty_lines_are_passed_over() -> None:
    assert len(answers("", CONFIG, "\n", line(1.0), "")) == 1


def test_after_seven_days_a_new_life_begins() -> None:
    found = answers(
        CONFIG,
        *(line(float(t), on=(t,)) for t in range(5)),
        line(LIFE_S + 1.0, on=(1_000,)),
    )
    assert found[4]["e_value"] > 10.0
    assert found[5]["e_value"] < 10.0


def test_a_kill_outlasts_its_life() -> None:
    found = answers(CONFIG, *(line(float(t), on=(t,)) for t in range(12)), line(LIFE_S + 1.0))
    assert found[-1]["kill"] is True


def test_an_announcement_opens_a_stream_that_may_decide() -> None:
    healthy = [line(t * 60.0, off=(t,), on=(1_000 + t,) if t % 3 == 0 else ()) for t in range(300)]
    fault = [line(20_000.0 + t, on=(2_000 + t,)) for t in range(30)]
    announced = json.dumps({"t": 19_999.0, "announced": "weights"})
    killed = next(a for a in answers(CONFIG, *healthy, announced, *fault) if a["kill"])
    assert killed["stream"].endswith("epoch 1 (weights)")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r'line 1: expected \{"config": \{…\}\}, got nothing'),
        (["nonsense"], "line 1: expected one JSON object, Expecting value"),
        (["[" * 100_000], "line 1: expected one JSON object"),
        ([line(1.0)], "line 1: config: expected an object, got None"),
        ([CONFIG, line(1.0), '{"t": "x"}'], "line 3: t: expected a finite number, got 'x'"),
        ([CONFIG, "", '{"t": 1, "cells": [{}]}'], r"line 3: cells\[0\]\.exposures: expected a who"),
        ([CONFIG, line(2.0), line(1.0)], r"line 3: t: expected at least 2\.0, got 1\.0"),
        ([CONFIG, '{"t": 1' + "0" * 5_000 + "}"], "line 2: expected one JSON object"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        answers(*lines)
