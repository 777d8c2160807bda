"""`flagd-server copy`: from one process on an SQLite file to any number on Postgres."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.cli.options import InputError, settings_of, text
from flagd_server.cli.progress import progress

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers
    from flagd_server.storage.transfer import Moved

_HELP = "copy an SQLite database to an empty Postgres, and check what arrived"
_SQLITE = "sqlite:"


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("copy", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--from",
        dest="source",
        metavar="sqlite:PATH",
        type=text,
        required=True,
        help="the file; no server may run on it",
    )
    parser.add_argument(
        "--to",
        dest="target",
        metavar="postgresql://…",
        type=text,
        help="an empty database; without it that of FLAGD_DATABASE_URL, which no list of processes"
        " shows",
    )


def run(options: argparse.Namespace) -> int:
    from flagd_server.clock import SystemClock
    from flagd_server.storage import is_postgres
    from flagd_server.storage.backup import copy_to_postgres

    if not options.source.startswith(_SQLITE):
        raise InputError(f"--from: expected sqlite:PATH, got {options.source!r}")
    target = options.target or settings_of(options).database
    if not is_postgres(target):
        raise InputError("--to: expected postgresql://…, or the same in FLAGD_DATABASE_URL")
    source = Path(options.source.removeprefix(_SQLITE))
    with progress("copying") as on_progress:
        moved = copy_to_postgres(source, target, SystemClock().now_ms(), on_progress)
    _print(moved)
    return 0


def _print(moved: "list[Moved]") -> None:
    width = max(len(table.table) for table in moved)
    for table in sorted(moved, key=lambda table: table.table):
        print(f"{table.table:<{width}}  {table.rows:>10,}  {table.checksum}")
    rows = sum(table.rows for table in moved)
    print(f"{rows:,} rows of {len(moved)} tables are the same in both")
