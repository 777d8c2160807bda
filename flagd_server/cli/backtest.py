"""`flagd-server backtest`: what the guard would have decided on recorded events."""

import argparse
from typing import TYPE_CHECKING

from flagd_server.cli.options import complain
from flagd_server.domain.guard.backtest import backtest
from flagd_server.domain.guard.records import RecordError

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "run recorded events through the guard; answers each with one line of JSON"


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("backtest", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    parser.add_argument(
        "file",
        metavar="FILE",
        help="recorded events as JSON lines, the policy first; - for standard input",
    )


def run(options: argparse.Namespace) -> int:
    try:
        # A descriptor of its own for standard input too, which may have been started closed.
        with open(0 if options.file == "-" else options.file, encoding="utf-8") as lines:
            for answer in backtest(lines):
                print(answer, flush=True)
    except (RecordError, UnicodeDecodeError) as error:
        complain(f"{options.file}: {error}")
        return 1
    return 0
