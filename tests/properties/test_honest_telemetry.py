"""Whatever an application does, the server has nothing against what its SDK reports of it."""

import json
import random
from typing import Any

import pytest

from flagd_sdk.core.failure import Failure
from flagd_sdk.core.looking import Watch
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.summary import Tally
from flagd_server.api.schemas.telemetry import read_summary
from tests.sdk.fakes import UNIT_KEY, flag, flag_set

KEY = bytes.fromhex(UNIT_KEY)
FLAGS = parse_flag_set(flag_set(flag("a", on=50_000), flag("b", on=5_000), flag("c", on=100_000)))
EVERYTHING = Watch({"p99": 0.4, "p90": 0.1}, "f" * 16)


def envelope(counted: dict[str, Any], sequence: int) -> dict[str, Any]:
    return {
        "instance": "i-1",
        "sequence": sequence,
        "service": "shop",
        "service_version": "1",
        "applied_sequence": 0,
        "started_at": "2026-11-23T19:14:36.120Z",
        "ended_at": "2026-11-23T19:14:37.123Z",
        **counted,
    }


def live(drawn: random.Random, tally: Tally, scopes: int, now_s: float) -> None:
    """Let units of work pass, some slow, some failing, some of them in several ways."""
    for _ in range(scopes):
        context = {"targetingKey": f"u-{drawn.randrange(drawn.choice((3, 3_000)))}"}
        names = drawn.sample(("a", "b", "c"), drawn.randrange(1, 4))
        failures = [
            Failure(f"error:E{drawn.randrange(60)}", "shop:pay", "declined", drawn.choice(names))
            if drawn.random() < 0.5
            else Failure("error:KeyError", "shop:pay", "'x'", None)
            for _ in range(drawn.choice((0, 0, 0, 1, 3)))
        ]
        served = {name: FLAGS.resolve(name, context) for name in names}
        duration_us = drawn.choice((5, 90_000, 104_000, 400_000, 500_000, 2**40))
        tally.record(served, context, KEY, duration_us, failures, now_s)


@pytest.mark.parametrize("seed", range(12))
def test_no_row_of_it_is_refused(seed: int) -> None:
    drawn = random.Random(seed)
    tally = Tally(EVERYTHING)
    kinds: set[str] = set()
    for sequence in range(1, 9):
        live(drawn, tally, drawn.choice((1, 20, 1_500)), sequence * drawn.choice((1.0, 900.0)))
        counted = tally.take().document()
        sent = json.loads(json.dumps(envelope(counted, sequence)))
        summary = read_summary(sent)
        assert summary.refused == ()
        assert len(summary.cells) == len(counted["cells"]) > 0
        kinds.update(kind.partition(":")[0] for cell in counted["cells"] for kind in cell["units"])
    assert kinds == {"error", "slow", "near", "exposed"}, "the traffic shows nothing otherwise"
