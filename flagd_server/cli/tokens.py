"""`flagd-server token`: creates, lists and revokes tokens where no admin token is at hand."""

import argparse
import re
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.cli.options import add_database, settings_of, text
from flagd_server.domain.times import format_time
from flagd_server.domain.token_text import KINDS, SCOPES
from flagd_server.errors import SettingsError

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers
    from flagd_server.services.tokens import Tokens
    from flagd_server.storage.records import Token

_HELP = "create, list and revoke tokens"
_CREATE_HELP = "make a token and print it, once"
_LIST_HELP = "list tokens, without their secrets"
_REVOKE_HELP = "end a token at once"
_ACTOR = "command line"
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("token", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    create = actions.add_parser("create", help=_CREATE_HELP, description=_CREATE_HELP)
    create.set_defaults(act=_create)
    create.add_argument("--scope", required=True, choices=SCOPES)
    create.add_argument("--name", required=True, type=text, help="whose it is, for the audit")
    create.add_argument(
        "--environment", type=text, help="with the scopes sdk and ofrep: the one it is for"
    )
    create.add_argument(
        "--kind",
        choices=KINDS,
        default="server",
        help="client: for devices that people own, to whose reports the guard does not listen",
    )
    create.add_argument(
        "--expires-in",
        metavar="DURATION",
        type=_duration,
        help="let it end by itself, such as 90d, 12h or 30m",
    )
    add_database(create)

    list_ = actions.add_parser("list", help=_LIST_HELP, description=_LIST_HELP)
    list_.set_defaults(act=_list)
    add_database(list_)

    revoke = actions.add_parser("revoke", help=_REVOKE_HELP, description=_REVOKE_HELP)
    revoke.set_defaults(act=_revoke)
    revoke.add_argument("token_id", metavar="ID", type=text, help="as `token list` shows it")
    add_database(revoke)


def run(options: argparse.Namespace) -> int:
    from flagd_server.clock import SystemClock
    from flagd_server.services.tokens import Tokens
    from flagd_server.storage import open_storage

    settings = settings_of(options)
    if "://" not in settings.database and not Path(settings.database).exists():
        raise SettingsError([f"FLAGD_DATABASE: there is no {settings.database}"])
    act: Callable[[argparse.Namespace, Tokens], None] = options.act
    with closing(open_storage(settings.database)) as storage:
        act(options, Tokens(storage, SystemClock()))
    return 0


def _create(options: argparse.Namespace, tokens: "Tokens") -> None:
    lasts: timedelta | None = options.expires_in
    created = tokens.create(
        options.scope,
        options.name,
        options.environment,
        options.kind,
        actor=_ACTOR,
        expires_at=None if lasts is None else datetime.now(UTC) + lasts,
    )
    # The text alone on stdout, so that it can be piped to where it is needed.
    print(f"{created.token.id} is shown this once:", file=sys.stderr)
    print(created.text)


def _list(options: argparse.Namespace, tokens: "Tokens") -> None:
    now = datetime.now(UTC)
    for token in tokens.list():
        used = (
            "never used"
            if token.last_used_at is None
            else f"used {format_time(token.last_used_at)}"
        )
        print(
            f"{token.id}  {token.prefix:<24}  {token.kind:<6}  {_state(token, now):<32}"
            f"  {used:<29}  {token.name}"
        )


def _state(token: "Token", now: datetime) -> str:
    if token.revoked_at is not None:
        return f"revoked {format_time(token.revoked_at)}"
    if token.expires_at is None:
        return "alive"
    has_expired = token.has_expired(now)
    return f"{'expired' if has_expired else 'alive until'} {format_time(token.expires_at)}"


def _revoke(options: argparse.Namespace, tokens: "Tokens") -> None:
    tokens.revoke(options.token_id, actor=_ACTOR)


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a duration such as 90d or 12h, got {text!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
