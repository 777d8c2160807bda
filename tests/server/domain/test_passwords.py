"""Which passwords will do."""

import gzip
import random
import string
from pathlib import Path

import django.contrib.auth
import pytest

from flagd_server.domain.passwords import MAX_CHARS, is_common, password_faults


@pytest.mark.parametrize(
    "password",
    [
        "correct mule pond staple",
        "zdhq-wvkn-tlmx",
        "836402947153",
        "ÄÖÜ nur Wörter 鍵",
        " leading and trailing ",
        "x" * 3 + "ypsilon-alpha-kilo" * 7,
    ],
)
def test_long_ones_of_any_kind_will_do(password: str) -> None:
    assert password_faults("password", password, "ann") == []


@pytest.mark.parametrize("length", [0, 11, MAX_CHARS + 1])
def test_the_length_is_held(length: int) -> None:
    text = "".join(random.Random(1).choices(string.ascii_letters, k=length))
    (fault,) = password_faults("new_password", text, "ann")
    assert fault.field == "new_password"
    assert "characters" in fault.message


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "P@ssw0rd2026!",
        "qwertyuiop123",
        "1q2w3e4r5t6y",
        "aaaaaaaaaaaaaaaa",
        "123456789012",
        "abcabcabcabc",
        "Welcome2Summer",
        "annannann2026!",
        "flagd-release",
    ],
)
def test_what_is_tried_first_will_not_do(password: str) -> None:
    (fault,) = password_faults("password", password, "ann")
    assert fault.message.startswith("is made of what is tried first")
    assert password not in fault.message


def test_the_name_is_no_password() -> None:
    assert is_common("Marguerite.Yourcenar!9", "marguerite.yourcenar@example.com")
    assert not is_common("Marguerite.Yourcenar!9", "bob")


def test_most_of_a_list_of_leaked_passwords_and_none_by_chance() -> None:
    path = Path(django.contrib.auth.__file__).with_name("common-passwords.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        leaked = [line.strip() for line in file if len(line.strip()) >= 12]
    assert len(leaked) > 150
    assert sum(is_common(password, "ann") for password in leaked) > 0.6 * len(leaked)
    chance = random.Random(6)
    for alphabet in (string.printable[:94], string.ascii_lowercase):
        made = ["".join(chance.choices(alphabet, k=12)) for _ in range(500)]
        assert sum(is_common(password, "ann") for password in made) <= 1
