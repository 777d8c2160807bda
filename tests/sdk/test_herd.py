import random

import pytest

from flagd_sdk.errors import ConnectError, StatusError
from tests.end_to_end.misbehaving import worst_second
from tests.sdk.herd import report_returns, stream_returns

CLIENTS = 1_000
SHARE = 0.30  # of them, that the worst second may see


@pytest.mark.parametrize(
    ("away_s", "fault"),
    [(0.0, ConnectError("refused")), (1.0, ConnectError("refused")), (2.5, StatusError(503)),
     (2.5, StatusError(503, retry_after_s=10.0)), (5.0, ConnectError("refused")),
     (15.0, StatusError(503, retry_after_s=10.0)), (30.0, StatusError(503)),
     (120.0, StatusError(401))],
)  # fmt: skip
def test_a_thousand_clients_cut_at_once_do_not_come_back_at_once(
    away_s: float, fault: Exception
) -> None:
    fleet = random.Random(11)
    # As the hub asks for with a thousand streams.
    retries_ms = [round(fleet.uniform(4_000, 8_000)) for _ in range(CLIENTS)]
    back_at, polled_at = stream_returns(retries_ms, away_s, fault)
    worst, polls = worst_second(back_at), worst_second(polled_at)
    print(f"away {away_s} s ({fault}): {worst} streams and {polls} polls in the worst second")
    assert len(back_at) == CLIENTS
    assert worst <= SHARE * CLIENTS
    assert polls <= SHARE * CLIENTS
    assert max(back_at) - away_s <= 35.0


@pytest.mark.parametrize(
    ("is_busy", "away_s"), [(False, 5.0), (False, 60.0), (True, 5.0), (True, 60.0)]
)
def test_nor_do_their_reports(is_busy: bool, away_s: float) -> None:
    back_at = report_returns(CLIENTS, away_s, is_busy)
    print(f"away {away_s} s: {worst_second(back_at)} first summaries in the worst second")
    assert worst_second(back_at) <= SHARE * CLIENTS
    assert max(back_at) - away_s <= 35.0
