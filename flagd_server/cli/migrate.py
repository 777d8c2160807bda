"""`flagd-server migrate`: brings the schema of the database up to date, or says what it lacks."""

import argparse
from typing import TYPE_CHECKING

from flagd_server.cli.options import add_database, settings_of

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "bring the schema of the database up to date"
PENDING = 3
"""The exit status of `--check` where steps are pending."""


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("migrate", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"change nothing: name the steps that are pending, and exit with {PENDING} if any are",
    )
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    from flagd_server.storage import open_storage, pending_steps

    database = settings_of(options).database
    pending = pending_steps(database)
    if not options.check:
        open_storage(database).close()
    for name in pending:
        print(f"{name}  {'pending' if options.check else 'applied'}")
    if not pending:
        print("the schema is up to date")
    return PENDING if options.check and pending else 0
