"""Texts of variables → values. Each raises a ValueError that says what was expected, and does not
repeat what was given: it may be a secret.
"""

import re
from collections.abc import Callable

from flagd_server.domain.targets import Allowed
from flagd_server.domain.token_text import FORM_OF_ADMIN, is_admin_token

# As browsers send it: in lower case, without a path, and with no port where it is the scheme's.
_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+[a-z0-9\]]")
_POSTGRES_URL = re.compile(r"postgres(ql)?://[^\s/]\S*")


def text(given: str) -> str:
    return given


def path(given: str) -> str:
    if "://" in given:  # as a file it would be made in a folder of that name, and seem to work
        raise ValueError("expected the path of a SQLite file")
    return given


def postgres_url(given: str) -> str:
    if not _POSTGRES_URL.fullmatch(given):
        raise ValueError("expected postgresql://user:password@host/database")
    return given


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(given: str) -> int:
        if given.isascii() and given.isdigit() and len(given) < 20 and low <= int(given) <= high:
            return int(given)
        raise ValueError(f"expected a whole number from {low} to {high}")

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    def parse(given: str) -> float:
        try:
            value = float(given)
        except ValueError:
            value = float("nan")
        if low <= value <= high:
            return value
        raise ValueError(f"expected a number from {low:g} to {high:g}")

    return parse


def one_of(*names: str) -> Callable[[str], str]:
    def parse(given: str) -> str:
        if given.lower() in names:
            return given.lower()
        raise ValueError(f"expected one of {', '.join(names)}")

    return parse


def boolean(given: str) -> bool:
    if given.lower() in ("true", "1"):
        return True
    if given.lower() in ("false", "0"):
        return False
    raise ValueError("expected true or false")


def origins(given: str) -> frozenset[str]:
    found = frozenset(part.strip() for part in given.split(","))
    if all(part == "*" or _ORIGIN.fullmatch(part) for part in found):
        return found
    raise ValueError("expected origins such as https://shop.example, with commas between, or *")


def networks(given: str) -> Allowed:
    return Allowed.parse(given.split(","))


def admin_token(given: str) -> str:
    if is_admin_token(given):
        return given
    raise ValueError(f"expected {FORM_OF_ADMIN}")
