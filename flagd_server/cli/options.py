"""What commands share: how an option is declared and read, and how a fault is said."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from flagd_server.errors import ServerError

if TYPE_CHECKING:
    from flagd_server.config import Settings

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
    """What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""
    Parser = argparse.ArgumentParser | argparse._ArgumentGroup


class InputError(ServerError):
    """What a command was given can't be used; the message names it and what was expected."""


def text(argument: str) -> str:
    """Return an argument that is text; Python passes on what it could not decode as surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("expected text in UTF-8") from None
    return argument


def add_database(parser: "Parser") -> None:
    add_setting(parser, "--database", "FLAGD_DATABASE", "path of the SQLite file")


def add_setting(parser: "Parser", option: str, variable: str, description: str) -> None:
    """Declare an option that stands for an environment variable, and is read as that one is."""
    parser.add_argument(option, dest=variable, help=f"{description} ({variable})")


def given_settings(options: argparse.Namespace) -> dict[str, str]:
    """Return the variables that options stand for."""
    return {
        name: value
        for name, value in vars(options).items()
        if name.startswith("FLAGD_") and value is not None
    }


def settings_of(options: argparse.Namespace) -> "Settings":
    """Return the settings of the environment and the options.

    Raises:
        SettingsError: some of them can't be used; it names them all.
    """
    # Imported here: a help text needs no extra.
    from flagd_server.config import Settings

    return Settings.from_environ(os.environ, given_settings(options))


def complain(*messages: str) -> None:
    """Say each on standard error, one line each."""
    for message in messages:
        print(f"flagd-server: {message}", file=sys.stderr)
