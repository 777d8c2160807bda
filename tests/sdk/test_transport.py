from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import ConnectError
from flagd_sdk.transport import HttpTransport, _retry_after_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("30", 30.0), ("999999999999", 300.0), ("", None), ("-1", None), ("soon", None),
     ("1.5", None), ("١٥", None), ("9" * 5_000, 300.0)],
)  # fmt: skip
def test_retry_after_in_seconds_is_bounded(text: str, seconds: float | None) -> None:
    assert _retry_after_s(text) == seconds


@pytest.mark.parametrize(
    ("ahead_s", "low", "high"), [(60, 50.0, 61.0), (-60, 0.0, 0.0), (86_400, 300.0, 300.0)]
)
def test_retry_after_as_a_date_is_bounded(ahead_s: int, low: float, high: float) -> None:
    at = datetime.now(UTC) + timedelta(seconds=ahead_s)
    wait_s = _retry_after_s(format_datetime(at, usegmt=True))
    assert wait_s is not None
    assert low <= wait_s <= high


def test_what_the_http_stack_raises_is_named_without_addresses_and_secrets() -> None:
    config = ClientConfig(url="http://127.0.0.1:1", token="fr_sdk_x_Secret", cache_dir=None)
    with pytest.raises(ConnectError) as refusal:
        HttpTransport(config).fetch_flags("")
    assert str(refusal.value) == "ConnectionError (ConnectionRefusedError: Connection refused)"
