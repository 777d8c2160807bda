"""Settings from environment variables."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from flagd_server.config import Settings, read_settings
from flagd_server.config.showing import in_force, unknown
from flagd_server.config.variables import variables_of
from flagd_server.domain.targets import Allowed
from flagd_server.domain.token_text import FORM_OF_ADMIN
from flagd_server.errors import SettingsError

TOKEN = "fr_admin_" + "a1B2" * 10


def faults(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ)
    return caught.value.faults


def test_nothing_set_means_the_defaults() -> None:
    assert Settings.from_environ({}) == Settings()
    assert Settings.from_environ({"FLAGD_PORT": "", "FLAGD_ADMIN_TOKEN_FILE": ""}) == Settings()


def test_every_variable_is_read() -> None:
    settings = Settings.from_environ(
        {
            "FLAGD_HOST": "::1",
            "FLAGD_PORT": "0",
            "FLAGD_DATABASE": "/data/f.db",
            "FLAGD_THREADS": "4",
            "FLAGD_HEARTBEAT_S": "2.5",
            "FLAGD_RETENTION_DAYS": "90",
            "FLAGD_HEALTHY_AFTER_S": "1800",
            "FLAGD_LOG_LEVEL": "WARNING",
            "FLAGD_ACCESS_LOG": "true",
            "FLAGD_ADMIN_TOKEN": TOKEN,
            "FLAGD_INITIAL_TOKENS_FILE": "/run/tokens.json",
            "FLAGD_OFREP_ORIGINS": "https://shop.example, http://localhost:5173,http://[::1]",
            "FLAGD_GIT_SHA": "3f2c1ab",
            "FLAGD_OUTGOING_ALLOW": "Prometheus.monitoring, 10.1.0.0/16",
            "FLAGD_BEHIND_TLS": "true",
            "FLAGD_PROXIES": "1",
            "FLAGD_MAX_STREAMS": "50000",
            "FLAGD_MAX_STREAMS_PER_TOKEN": "20000",
            "FLAGD_API_PER_MINUTE": "0",
            "FLAGD_OPEN_PER_MINUTE": "60",
            "FLAGD_REFUSED_PER_MINUTE": "30",
        }
    )
    assert settings == Settings(
        host="::1",
        port=0,
        database="/data/f.db",
        threads=4,
        heartbeat_s=2.5,
        retention_days=90,
        healthy_after_s=1_800.0,
        log_level="warning",
        access_log=True,
        admin_token=TOKEN,
        initial_tokens_file="/run/tokens.json",
        ofrep_origins=frozenset({"https://shop.example", "http://localhost:5173", "http://[::1]"}),
        git_sha="3f2c1ab",
        outgoing_allow=Allowed(frozenset({"prometheus.monitoring"}), (IPv4Network("10.1.0.0/16"),)),
        behind_tls=True,
        proxies=1,
        max_streams=50_000,
        max_streams_per_token=20_000,
        api_per_minute=0,
        open_per_minute=60,
        refused_per_minute=30,
    )


def test_every_fault_is_named_with_what_was_expected() -> None:
    assert faults(
        {
            "FLAGD_PORT": "65536",
            "FLAGD_THREADS": "many",
            "FLAGD_HEARTBEAT_S": "nan",
            "FLAGD_LOG_LEVEL": "loud",
            "FLAGD_ACCESS_LOG": "yes",
            "FLAGD_OUTGOING_ALLOW": "http://prometheus:9090",
        }
    ) == (
        "FLAGD_PORT: expected a whole number from 0 to 65535, got '65536'",
        "FLAGD_THREADS: expected a whole number from 1 to 256, got 'many'",
        "FLAGD_HEARTBEAT_S: expected a number from 0.1 to 15, got 'nan'",
        "FLAGD_LOG_LEVEL: expected one of debug, info, warning, error, got 'loud'",
        "FLAGD_ACCESS_LOG: expected true or false, got 'yes'",
        "FLAGD_OUTGOING_ALLOW: expected host names, addresses or CIDRs, separated by commas,"
        " got 'http://…'",
    )


@pytest.mark.parametrize(
    "text",
    [
        "shop.example",
        "https://shop.example/",
        "https://Shop.example",
        "https://a,",
        "null",
        "https://",
    ],
)
def test_an_origin_is_as_browsers_send_it(text: str) -> None:
    assert len(faults({"FLAGD_OFREP_ORIGINS": text})) == 1
    assert Settings.from_environ({"FLAGD_OFREP_ORIGINS": "*"}).ofrep_origins == {"*"}


@pytest.mark.parametrize("text", ["²", "+1", "1_000", " 1", "-1", "9" * 5000])
def test_a_number_is_plain_digits(text: str) -> None:
    assert len(faults({"FLAGD_PORT": text})) == 1


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert Settings.from_environ({"FLAGD_ADMIN_TOKEN_FILE": str(file)}).admin_token == TOKEN


def test_an_admin_token_may_have_the_present_form() -> None:
    token = "fr_admin_" + "a1B2" * 4 + "." + "c3_-" * 10 + "abc"
    assert Settings.from_environ({"FLAGD_ADMIN_TOKEN": token}).admin_token == token


def test_sessions_without_tls_are_for_loopback() -> None:
    plain = {"FLAGD_PLAIN_HTTP_SESSIONS": "true"}
    assert Settings.from_environ(plain).plain_http_sessions
    (fault,) = faults(plain | {"FLAGD_HOST": "0.0.0.0"})
    assert fault.startswith("FLAGD_PLAIN_HTTP_SESSIONS: expected FLAGD_HOST")


def test_a_secret_comes_from_one_place() -> None:
    environ = {"FLAGD_ADMIN_TOKEN": TOKEN, "FLAGD_ADMIN_TOKEN_FILE": "/nowhere"}
    assert faults(environ) == ("FLAGD_ADMIN_TOKEN: set it or FLAGD_ADMIN_TOKEN_FILE, not both",)


def test_a_secret_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (fault,) = faults({"FLAGD_ADMIN_TOKEN_FILE": str(tmp_path / "none")})
    assert fault.startswith("FLAGD_ADMIN_TOKEN_FILE: can't read")


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "fr_admin_" + "a" * 31,
        "fr_read_" + "a" * 43,
        TOKEN + "_",
        TOKEN * 9,
        "fr_admin_" + "a" * 16 + "." + "b" * 42,
        "fr_admin_" + "a" * 15 + "." + "b" * 43,
        "fr_read_" + "a" * 16 + "." + "b" * 43,
    ],
)
def test_a_weak_admin_token_is_refused_without_being_repeated(text: str) -> None:
    (fault,) = faults({"FLAGD_ADMIN_TOKEN": text})
    assert fault == f"FLAGD_ADMIN_TOKEN: expected {FORM_OF_ADMIN}"


def test_a_database_of_another_kind_is_refused_without_its_password() -> None:
    (fault,) = faults({"FLAGD_DATABASE": "postgresql://flagd:hunter2@db/flagd"})
    assert fault == "FLAGD_DATABASE: expected the path of a SQLite file, got 'postgresql://…'"


def test_a_postgres_is_a_setting_of_its_own_and_may_stand_in_a_file(tmp_path: Path) -> None:
    url = "postgresql://flagd:hunter2@db:5432/flagd"
    assert Settings.from_environ({"FLAGD_DATABASE_URL": url}).database == url
    file = tmp_path / "url"
    file.write_text(url + "\n")
    assert Settings.from_environ({"FLAGD_DATABASE_URL_FILE": str(file)}).database == url
    assert faults({"FLAGD_DATABASE": "f.db", "FLAGD_DATABASE_URL": url}) == (
        "FLAGD_DATABASE: set it or FLAGD_DATABASE_URL, not both",
    )
    assert faults({"FLAGD_DATABASE_URL": "mysql://flagd:hunter2@db/flagd"}) == (
        "FLAGD_DATABASE_URL: expected postgresql://user:password@host/database",
    )


def test_an_option_wins_over_every_variable_of_its_setting() -> None:
    environ = {"FLAGD_DATABASE_URL": "postgresql://db/flagd", "FLAGD_PORT": "none"}
    options = {"FLAGD_DATABASE": "/data/f.db", "FLAGD_PORT": "80"}
    settings = Settings.from_environ(environ, options)
    assert (settings.database, settings.port) == ("/data/f.db", 80)


def test_a_secret_file_that_is_no_text_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"hunter2\xff")
    (fault,) = faults({"FLAGD_ADMIN_TOKEN_FILE": str(file)})
    assert fault == f"FLAGD_ADMIN_TOKEN_FILE: can't read {file}: no UTF-8"


def test_every_setting_is_read_from_a_variable_and_described() -> None:
    """A field without one would be a setting that nobody can set."""
    for name, variables in variables_of(Settings):
        assert variables, name
        for variable, declared in variables:
            assert variable.startswith("FLAGD_"), name
            assert declared.description, name


def test_what_is_in_force_is_shown_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    environ = {
        "FLAGD_PORT": "8014",
        "FLAGD_DATABASE_URL": "postgresql://flagd:hun/t@e?r2@db/flagd?password=hunter3",
        "FLAGD_ADMIN_TOKEN_FILE": str(file),
        "FLAGD_OUTGOING_ALLOW": "10.0.0.0/8",
    }
    shown = {
        entry.variable: (entry.value, entry.origin)
        for entry in in_force(*read_settings(environ, {}))
    }
    assert len(shown) == len(Settings.model_fields)
    assert shown["FLAGD_HOST"] == ("127.0.0.1", "default")
    assert shown["FLAGD_PORT"] == (8014, "environment")
    assert shown["FLAGD_DATABASE_URL"] == ("postgresql://flagd:…@db/flagd?…", "environment")
    assert shown["FLAGD_ADMIN_TOKEN_FILE"] == ("…", "file")
    assert shown["FLAGD_OUTGOING_ALLOW"] == ("10.0.0.0/8", "environment")
    assert shown["FLAGD_OFREP_ORIGINS"] == (None, "default")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://db/flagd", "postgresql://db/flagd"),
        ("postgresql://flagd@db/flagd", "postgresql://flagd@db/flagd"),
        ("postgresql://a:5432,b:5433/flagd", "postgresql://a:5432,b:5433/flagd"),
        ("postgresql://db/flagd?password=hunter2", "postgresql://db/flagd?…"),
        ("postgres://u:hunter2:@@db/flagd", "postgres://u:…@db/flagd"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    (entry,) = [
        entry
        for entry in in_force(*read_settings({"FLAGD_DATABASE_URL": url}, {}))
        if entry.variable == "FLAGD_DATABASE_URL"
    ]
    assert entry.value == shown


def test_a_misspelt_variable_is_noticed() -> None:
    environ = {"FLAGD_PROT": "1", "FLAGD_PORT": "1", "FLAGD_ADMIN_TOKEN_FILE": "x", "PATH": "y"}
    assert unknown({**environ, "FLAGD_URL": "http://of-an-application"}) == ["FLAGD_PROT"]


def test_settings_are_never_printed() -> None:
    settings = Settings(admin_token=TOKEN)
    assert TOKEN not in repr(settings) + str(settings)
