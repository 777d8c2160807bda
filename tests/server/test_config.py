"""Settings from environment variables."""

from pathlib import Path

import pytest

from flagd_server.config import Settings
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
            "FLAGD_LOG_LEVEL": "WARNING",
            "FLAGD_ACCESS_LOG": "true",
            "FLAGD_ADMIN_TOKEN": TOKEN,
            "FLAGD_INITIAL_TOKENS_FILE": "/run/tokens.json",
            "FLAGD_GIT_SHA": "3f2c1ab",
        }
    )
    assert settings == Settings(
        host="::1",
        port=0,
        database="/data/f.db",
        threads=4,
        heartbeat_s=2.5,
        retention_days=90,
        log_level="warning",
        access_log=True,
        admin_token=TOKEN,
        initial_tokens_file="/run/tokens.json",
        git_sha="3f2c1ab",
    )


def test_every_fault_is_named_with_what_was_expected() -> None:
    assert faults(
        {
            "FLAGD_PORT": "65536",
            "FLAGD_THREADS": "many",
            "FLAGD_HEARTBEAT_S": "nan",
            "FLAGD_LOG_LEVEL": "loud",
            "FLAGD_ACCESS_LOG": "yes",
        }
    ) == (
        "FLAGD_PORT: expected a whole number from 0 to 65535, got '65536'",
        "FLAGD_THREADS: expected a whole number from 1 to 256, got 'many'",
        "FLAGD_HEARTBEAT_S: expected a number from 0.1 to 15, got 'nan'",
        "FLAGD_LOG_LEVEL: expected one of debug, info, warning, error, got 'loud'",
        "FLAGD_ACCESS_LOG: expected true or false, got 'yes'",
    )


@pytest.mark.parametrize("text", ["²", "+1", "1_000", " 1", "-1", "9" * 5000])
def test_a_number_is_plain_digits(text: str) -> None:
    assert len(faults({"FLAGD_PORT": text})) == 1


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert Settings.from_environ({"FLAGD_ADMIN_TOKEN_FILE": str(file)}).admin_token == TOKEN


def test_a_secret_comes_from_one_place() -> None:
    environ = {"FLAGD_ADMIN_TOKEN": TOKEN, "FLAGD_ADMIN_TOKEN_FILE": "/nowhere"}
    assert faults(environ) == ("FLAGD_ADMIN_TOKEN: set it or FLAGD_ADMIN_TOKEN_FILE, not both",)


def test_a_secret_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (fault,) = faults({"FLAGD_ADMIN_TOKEN_FILE": str(tmp_path / "none")})
    assert fault.startswith("FLAGD_ADMIN_TOKEN_FILE: can't read")


@pytest.mark.parametrize(
    "text", ["hunter2", "fr_admin_" + "a" * 31, "fr_read_" + "a" * 43, TOKEN + "_", TOKEN * 9]
)
def test_a_weak_admin_token_is_refused_without_being_repeated(text: str) -> None:
    (fault,) = faults({"FLAGD_ADMIN_TOKEN": text})
    assert fault == "FLAGD_ADMIN_TOKEN: expected fr_admin_ and 32 to 128 letters and digits"


def test_a_database_of_another_kind_is_refused_without_its_password() -> None:
    (fault,) = faults({"FLAGD_DATABASE": "postgresql://flagd:hunter2@db/flagd"})
    assert fault == "FLAGD_DATABASE: expected the path of a SQLite file, got 'postgresql://…'"


def test_settings_are_never_printed() -> None:
    assert TOKEN not in repr(Settings(admin_token=TOKEN))
