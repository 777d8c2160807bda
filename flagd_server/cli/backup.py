"""`flagd-server backup FILE`: all of the database into one file, while servers go on."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.cli.options import add_database, settings_of, text
from flagd_server.cli.progress import progress

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "write all of the database into a file"


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("backup", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    parser.add_argument(
        "file", metavar="FILE", type=text, help="made by this; it holds secrets, as the database"
    )
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    from flagd_server.storage.backup import back_up

    file = Path(options.file)
    with progress("backing up") as on_progress:
        back_up(settings_of(options).database, file, on_progress)
    print(f"{file}: {file.stat().st_size:,} bytes")
    return 0
