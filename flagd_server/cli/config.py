"""`flagd-server config`: what is in force and where each setting comes from, without secrets."""

import argparse
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from flagd_server.cli.options import complain

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "show the settings that a server would run with"


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("config", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument(
        "--markdown", action="store_true", help="the table of all that can be set, as documented"
    )


def run(options: argparse.Namespace) -> int:
    from flagd_server.config import read_settings
    from flagd_server.config.showing import in_force, markdown_table, unknown

    if options.markdown:
        print(markdown_table(), end="")
        return 0
    shown = list(in_force(*read_settings(os.environ, {})))
    if options.json:
        print(json.dumps([asdict(setting) for setting in shown], indent=2, ensure_ascii=False))
    else:
        width = max(len(setting.variable) for setting in shown)
        for setting in shown:
            value = "" if setting.value is None else json.dumps(setting.value, ensure_ascii=False)
            print(f"{setting.variable:<{width}}  {setting.origin:<11}  {value}".rstrip())
    for name in unknown(os.environ):
        complain(f"{name}: there is no such setting")
    return 0
