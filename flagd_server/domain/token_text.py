"""What a token looks like: `fr_<scope>_<environment>_<secret>`, or without the environment.

A token names its scope and environment, so that a person who finds one knows what it opens and
where to revoke it; only its secret part is secret.
"""

import re

ENVIRONMENT_SCOPES = ("sdk",)
"""Scopes of applications: each token is for one environment."""
SCOPES = ("admin", "read", "kill", *ENVIRONMENT_SCOPES)
KINDS = ("server", "client")

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LENGTH = 43
"""Of the secret part; 62^43 is just above 2^256."""

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_ADMIN = re.compile(r"fr_admin_[A-Za-z0-9]{32,128}")


def token_prefix(scope: str, environment: str | None) -> str:
    """Return the public part, which stands before the last underscore of the token."""
    return f"fr_{scope}" if environment is None else f"fr_{scope}_{environment}"


def is_admin_token(text: str) -> bool:
    """Tell whether the text will do as an admin token: 32 characters or more of secret."""
    return _ADMIN.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether a token may be called so: it stands in the audit and in lists of one line."""
    return _NAME.fullmatch(text) is not None
