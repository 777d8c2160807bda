"""The command line: runs the server, manages tokens and people, tries the guard on records.

A module per command, each with `add_parser(subparsers)` and `run(options)`, which returns the exit
status. Options win over environment variables, and both are held to the same rules.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from flagd_server.cli import (
    audit,
    backtest,
    backup,
    config,
    copy,
    health,
    migrate,
    people,
    restore,
    serve,
    simulate,
    tokens,
)
from flagd_server.cli.options import complain
from flagd_server.errors import ServerError, SettingsError

COMMANDS = (
    serve,
    health,
    config,
    migrate,
    backup,
    restore,
    copy,
    tokens,
    people,
    audit,
    backtest,
    simulate,
)
"""Every command, in the order of the help: a new one is a module here."""

_OUR_PACKAGES = ("flagd_sdk", "flagd_server")
# As shells report a process that ended by SIGPIPE or SIGINT.
_BROKEN_PIPE = 128 + 13
_INTERRUPTED = 128 + 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status says whether it did what it should."""
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()  # whoever read has seen enough
        return _BROKEN_PIPE
    except OSError as error:
        _drop_output()
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _drop_output() -> None:
    """Keep what is buffered from being flushed at the exit, where it would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="flagd-server", description="A server of feature flags.")
    parser.add_argument("--version", action="version", version=version("flagd-release"))
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except SettingsError as error:
        complain(*error.faults)
    except ServerError as error:
        complain(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OUR_PACKAGES:
            raise  # no extra brings it: the installation or the code is broken
        complain(
            f"the module {error.name!r} is missing; the server needs what its extra brings:"
            " pip install 'flagd-release[server]'"
        )
    return 1
