"""`flagd-server restore FILE`: makes a database of a backup, where there is none yet."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.cli.options import add_database, settings_of, text
from flagd_server.cli.progress import progress

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "make a database of a backup, where there is none yet"


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("restore", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", type=text, help="as `backup` made it")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    from flagd_server.clock import SystemClock
    from flagd_server.storage.backup import restore

    database = settings_of(options).database
    with progress("restoring") as on_progress:
        restore(Path(options.file), database, SystemClock().now_ms(), on_progress)
    print(f"restored from {options.file}")
    return 0
