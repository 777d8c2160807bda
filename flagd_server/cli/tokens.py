"""`flagd-server token`: creates, lists and revokes tokens where no admin token is at hand."""

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.cli.options import add_database, settings_of, text
from flagd_server.domain.times import format_time
from flagd_server.domain.token_text import KINDS, SCOPES
from flagd_server.errors import SettingsError

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers
    from flagd_server.services.tokens import Tokens

_HELP = "create, list and revoke tokens"
_CREATE_HELP = "make a token and print it, once"
_LIST_HELP = "list tokens, without their secrets"
_REVOKE_HELP = "end a token at once"
_ACTOR = "command line"


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("token", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    create = actions.add_parser("create", help=_CREATE_HELP, description=_CREATE_HELP)
    create.set_defaults(act=_create)
    create.add_argument("--scope", required=True, choices=SCOPES)
    create.add_argument("--name", required=True, type=text, help="whose it is, for the audit")
    create.add_argument("--environment", type=text, help="with the scope sdk: the one it is for")
    create.add_argument(
        "--kind",
        choices=KINDS,
        default="server",
        help="client: for devices that people own, to whose reports the guard does not listen",
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
    if not Path(settings.database).exists():
        raise SettingsError([f"FLAGD_DATABASE: there is no {settings.database}"])
    act: Callable[[argparse.Namespace, Tokens], None] = options.act
    with closing(open_storage(settings.database)) as storage:
        act(options, Tokens(storage, SystemClock()))
    return 0


def _create(options: argparse.Namespace, tokens: "Tokens") -> None:
    created = tokens.create(
        options.scope, options.name, options.environment, options.kind, actor=_ACTOR
    )
    # The text alone on stdout, so that it can be piped to where it is needed.
    print(f"{created.token.id} is shown this once:", file=sys.stderr)
    print(created.text)


def _list(options: argparse.Namespace, tokens: "Tokens") -> None:
    for token in tokens.list():
        state = "alive" if token.revoked_at is None else f"revoked {format_time(token.revoked_at)}"
        print(f"{token.id}  {token.prefix:<24}  {token.kind:<6}  {state:<32}  {token.name}")


def _revoke(options: argparse.Namespace, tokens: "Tokens") -> None:
    tokens.revoke(options.token_id, actor=_ACTOR)
