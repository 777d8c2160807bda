from typing import Any

import pytest

from flagd_sdk import Backoff, ConfigurationError, FlagClient
from flagd_sdk.config import ClientConfig


def config(**settings: Any) -> ClientConfig:
    return ClientConfig(**{"url": "http://localhost:8013", "token": "fr_sdk_x_1", **settings})


@pytest.mark.parametrize(
    "url",
    ["http://localhost", "https://flags.example.com:8443/base/path/", "http://[::1]:80",
     "http://10.0.0.1:1"],
)  # fmt: skip
def test_ordinary_addresses_are_taken(url: str) -> None:
    assert config(url=url).checked().url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8013", "ftp://host", "http://", "http:///path", "http://host:0",
     "http://host:65536", "http://host:port", "http://user:secret@host", "http://host?x=1",
     "http://host#x", "http://ho st", " http://host", "http://host\n", "http://[::1", None, 7],
)  # fmt: skip
def test_other_addresses_are_refused_without_repeating_them(url: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^url: expected") as refusal:
        config(url=url).checked()
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("token", ""), ("token", None), ("token", "with space"), ("token", "new\nline"),
     ("token", "ünicode"), ("service", "x" * 129), ("service", 7), ("service_version", "a\nb"),
     ("bootstrap", 7), ("bootstrap", ""), ("cache_dir", 7), ("cache_dir", ""),
     ("instance", ""), ("instance", "x" * 65), ("instance", "a b"), ("instance", 7),
     ("connect_timeout_s", 0), ("request_timeout_s", -1), ("stream_silence_s", float("nan")),
     ("poll_interval_s", float("inf")), ("report_interval_s", "1"), ("heartbeat_interval_s", True),
     ("exit_timeout_s", None), ("max_flag_set_bytes", 0), ("backoff", 3),
     ("backoff", Backoff(floor_s=0)), ("backoff", Backoff(first_s=30.0, cap_s=20.0))],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{setting}[.:]"):
        config(**{setting: value}).checked()


@pytest.mark.parametrize(
    ("token", "environment"),
    [
        (f"fr_sdk_eu-west_{'A1' * 8}.{'a-_9' * 10}xyz", "eu-west"),
        ("fr_sdk_production_SeCrEt", "production"),  # of an earlier server
        ("fr_admin_x", None),
        ("something else", None),
    ],
)
def test_the_environment_is_read_from_the_token(token: str, environment: str | None) -> None:
    assert config(token=token).environment == environment


def test_a_client_says_at_once_what_is_wrong_with_its_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"^token: expected"):
        FlagClient("http://localhost:8013", "")


def test_the_token_is_never_shown() -> None:
    assert "fr_sdk" not in repr(config())
    with pytest.raises(ConfigurationError) as refusal:
        config(token="fr_sdk_x_1 ").checked()
    assert "fr_sdk" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://localhost:1", True), ("http://LOCALHOST", True), ("http://127.0.0.1", True),
     ("http://127.8.9.1:1", True), ("http://[::1]:1", True),
     ("http://127.0.0.1.example.com", False), ("https://flags.example.com", False)],
)  # fmt: skip
def test_loopback_is_recognised(url: str, expected: bool) -> None:
    assert config(url=url).is_loopback is expected
