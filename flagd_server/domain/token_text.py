"""What a token looks like: `fr_<scope>_<environment>_<selector>.<secret>`.

Tokens of scopes that are for no one environment are without that part.

What stands before the dot is public: it tells a person who finds one what it opens and where to
revoke it, and the server by which record to hold it. Only the secret is secret. Tokens of earlier
servers, `fr_<scope>_<environment>_<secret>`, have no dot.
"""

import re
from dataclasses import dataclass

ENVIRONMENT_SCOPES = ("sdk", "ofrep")
"""Scopes of applications: each token is for one environment."""
SCOPES = ("admin", "read", "kill", "deploy", *ENVIRONMENT_SCOPES)
KINDS = ("server", "client")

SELECTOR_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SELECTOR_LENGTH = 16
SECRET_BYTES = 32
"""Of randomness; 43 characters of base64url."""

PERSON_PREFIX = "people/"
"""How a person is called as an actor; no token may be named so."""

FORM_OF_ADMIN = (
    "fr_admin_, 16 letters and digits, a dot and 43 characters of base64url"
    " (or, as before, fr_admin_ and 32 to 128 letters and digits)"
)

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_TEXT = re.compile(r"(fr_[a-z]+(?:_[a-z0-9-]+)?)_([A-Za-z0-9]{16})\.([A-Za-z0-9_-]{43})", re.ASCII)
_ADMIN = re.compile(r"fr_admin_[A-Za-z0-9]{32,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TokenText:
    """The three parts of a token."""

    prefix: str
    selector: str
    secret: str

    def __str__(self) -> str:
        return f"{self.prefix}_{self.selector}.{self.secret}"


def parse_token(text: str) -> TokenText | None:
    """Return the parts; None where it is not of this form."""
    match = _TEXT.fullmatch(text)
    return None if match is None else TokenText(*match.groups())


def token_prefix(scope: str, environment: str | None) -> str:
    """Return the part that says what the token opens."""
    return f"fr_{scope}" if environment is None else f"fr_{scope}_{environment}"


def is_admin_token(text: str) -> bool:
    """Tell whether the text will do as an admin token, in the present form or the earlier one."""
    parts = parse_token(text)
    return parts.prefix == "fr_admin" if parts is not None else _ADMIN.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether a token may be called so: it stands in the audit and in lists of one line."""
    return _NAME.fullmatch(text) is not None and not text.startswith(PERSON_PREFIX)
