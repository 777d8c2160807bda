"""`flagd-server serve`: prepares the database, hands over the first tokens, runs the server."""

import argparse
import json
import logging
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.cli.options import add_database, add_setting, settings_of
from flagd_server.errors import SettingsError

if TYPE_CHECKING:
    from flask import Flask

    from flagd_server.cli.options import Subparsers
    from flagd_server.config import Settings
    from flagd_server.services.first_start import InitialTokens

_HELP = "run the server"
_log = logging.getLogger(__name__)


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("serve", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    add_setting(parser, "--host", "FLAGD_HOST", "address to listen on")
    add_setting(parser, "--port", "FLAGD_PORT", "port to listen on; 0 takes a free one")
    add_database(parser)
    add_setting(
        parser,
        "--initial-tokens",
        "FLAGD_INITIAL_TOKENS_FILE",
        "write the first tokens to this file, as JSON, instead of printing them",
    )


def run(options: argparse.Namespace) -> int:
    from flagd_server import logs
    from flagd_server.serving import serve

    settings = settings_of(options)

    def application() -> "Flask":
        # Called in the worker, which is the only process that opens the database for good.
        from flagd_server.app import create_app

        return create_app(settings)

    logs.configure(settings.log_level, settings.log_format)
    _prepare_database(settings)
    serve(
        application,
        host=settings.host,
        port=settings.port,
        threads=settings.threads,
        say=_log.info,
        behind_tls=settings.behind_tls,
    )
    return 0


def _prepare_database(settings: "Settings") -> None:
    """Make an empty database one to begin with; closed again before the server opens it."""
    from flagd_server.clock import SystemClock
    from flagd_server.services.environments import Environments
    from flagd_server.services.first_start import first_start
    from flagd_server.services.publishing import Publisher
    from flagd_server.services.tokens import Tokens
    from flagd_server.storage import open_storage

    def deliver(tokens: "InitialTokens") -> None:
        if settings.initial_tokens_file is None:
            _print_tokens(tokens, is_admin_known=settings.admin_token is not None)
        else:
            _write_tokens(tokens, Path(settings.initial_tokens_file))

    clock = SystemClock()
    with closing(open_storage(settings.database, as_server=True)) as storage:
        first_start(
            storage,
            Environments(storage, Publisher(clock)),
            Tokens(storage, clock),
            deliver,
            settings.admin_token,
        )


def _print_tokens(tokens: "InitialTokens", *, is_admin_known: bool) -> None:
    rows = [("admin", "as given in FLAGD_ADMIN_TOKEN" if is_admin_known else tokens.admin)]
    rows += [(f"SDK, {environment}", text) for environment, text in tokens.sdk.items()]
    width = max(len(name) for name, _ in rows)
    print("A new database, with its first tokens. They are shown this once:\n")
    for name, text in rows:
        print(f"    {name:<{width}}  {text}")
    print(flush=True)


def _write_tokens(tokens: "InitialTokens", path: Path) -> None:
    document = json.dumps({"admin": tokens.admin, "sdk": tokens.sdk}, indent=2) + "\n"
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SettingsError([f"FLAGD_INITIAL_TOKENS_FILE: can't write {path}: {error}"]) from error
