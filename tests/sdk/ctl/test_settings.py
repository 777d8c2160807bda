from pathlib import Path

import pytest

from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.settings import read_settings

URL = "http://127.0.0.1:8013"


def test_the_environment_says_where_and_by_which_token(tmp_path: Path) -> None:
    assert read_settings(None, None, {"FLAGD_URL": f"{URL}/", "FLAGD_TOKEN": "fr_x"}) == (
        URL,
        "fr_x",
    )
    file = tmp_path / "token"
    file.write_text("fr_file\n")
    environ = {"FLAGD_URL": URL, "FLAGD_TOKEN_FILE": str(file)}
    assert read_settings(None, None, environ)[1] == "fr_file"


def test_options_come_before_variables(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("fr_option")
    environ = {"FLAGD_URL": "http://other", "FLAGD_TOKEN": "fr_x"}
    assert read_settings(URL, str(file), environ) == (URL, "fr_option")


@pytest.mark.parametrize(
    ("url", "token", "message"),
    [
        ("", "", "FLAGD_TOKEN: is not set"),
        ("", "fr_x", "FLAGD_URL (or --url): is not set"),
        ("localhost:8013", "fr_x", "expected an address"),
        ("ftp://host", "fr_x", "expected an address"),
        ("http://me:secret@host", "fr_x", "expected an address"),
        ("http://[", "fr_x", "expected an address"),
        (URL, "fr x", "expected a token"),
        (URL, "fr_ü", "expected a token"),
    ],
)
def test_what_cannot_be_used_is_named(url: str, token: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        read_settings(None, None, {"FLAGD_URL": url, "FLAGD_TOKEN": token})
    assert caught.value.exit is Exit.USAGE
    assert message in str(caught.value)
    assert not token or token not in str(caught.value), "a token is never shown"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name, message in (("none", "No such file"), ("empty", "is empty")):
        with pytest.raises(CommandError, match=f"^--token-file: .*{message}"):
            read_settings(URL, str(tmp_path / name), {})
        with pytest.raises(CommandError, match=f"^FLAGD_TOKEN_FILE: .*{message}"):
            read_settings(URL, None, {"FLAGD_TOKEN_FILE": str(tmp_path / name)})
