"""Which server, and by which token: from the environment and the options."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from flagd_sdk.ctl.exits import CommandError, Exit, Problem

_MAX_TOKEN = 1024


def read_settings(
    url: str | None, token_file: str | None, environ: Mapping[str, str] = os.environ
) -> tuple[str, str]:
    """Return the server's address and the token. Options come before variables.

    A token is never an option: everybody on the machine can read a command line.

    Raises:
        CommandError: they are missing or can't be used; it names every fault.
    """
    problems: list[Problem] = []
    address = _address(url or environ.get("FLAGD_URL", ""), problems)
    token = _token(token_file, environ, problems)
    if problems:
        message = "; ".join(map(str, problems))
        raise CommandError(message, Exit.USAGE, problems)
    return address, token


def _address(text: str, problems: list[Problem]) -> str:
    try:
        parts = urlsplit(text)
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not text:
        message = "is not set; expected the server's address, such as http://127.0.0.1:8013"
        problems.append(Problem("FLAGD_URL (or --url)", message))
    elif not is_sound or parts.query or parts.fragment or parts.username is not None:
        message = "expected an address such as https://flags.example.com, and no more"
        problems.append(Problem("FLAGD_URL (or --url)", message))
    return text.rstrip("/")


def _token(token_file: str | None, environ: Mapping[str, str], problems: list[Problem]) -> str:
    name = "--token-file" if token_file else "FLAGD_TOKEN"
    token = "" if token_file else environ.get("FLAGD_TOKEN", "").strip()
    path = token_file or ("" if token else environ.get("FLAGD_TOKEN_FILE", ""))
    if path:
        name = name if token_file else "FLAGD_TOKEN_FILE"
        try:
            token = Path(path).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            problems.append(Problem(name, f"{path} can't be read: {why}"))
            return ""
    if not token:
        message = "is not set; FLAGD_TOKEN_FILE or --token-file may name a file that holds it"
        problems.append(Problem(name, "is empty" if path else message))
    elif len(token) > _MAX_TOKEN or not all("!" <= character <= "~" for character in token):
        problems.append(Problem(name, "expected a token, as the server showed it"))
    return token
