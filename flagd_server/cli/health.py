"""`flagd-server health`: asks the server on this machine, for containers that have no curl."""

import argparse
import json
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

from flagd_server.cli.options import add_setting, complain, settings_of

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "ask the server on this machine whether it is alive"
_TIMEOUT_S = 3.0
# What stands for every address of the machine; one asks at the machine's own.
_OWN = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("health", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--ready", action="store_true", help="ask whether it can do its work (/readyz)"
    )
    add_setting(parser, "--host", "FLAGD_HOST", "address that it listens on")
    add_setting(parser, "--port", "FLAGD_PORT", "port that it listens on")


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    host = _OWN.get(settings.host, settings.host)
    try:
        with closing(HTTPConnection(host, settings.port, timeout=_TIMEOUT_S)) as connection:
            connection.request("GET", "/readyz" if options.ready else "/healthz")
            answer = connection.getresponse()
            document = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        complain(f"{host} port {settings.port} gives no answer: {error or type(error).__name__}")
        return 1
    said = document if isinstance(document, dict) else {}
    print(said.get("status") if answer.status == 200 else said.get("detail", answer.status))
    return 0 if answer.status == 200 else 1
