"""The command line: starts the server, and manages tokens where no admin token is at hand.

Options win over environment variables, and both are held to the same rules.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.config import Settings
from flagd_server.domain.guard.backtest import backtest
from flagd_server.domain.guard.records import RecordError
from flagd_server.domain.times import format_time
from flagd_server.domain.token_text import KINDS, SCOPES
from flagd_server.errors import ServerError, SettingsError

if TYPE_CHECKING:
    from flask import Flask

    from flagd_server.services.first_start import InitialTokens
    from flagd_server.services.tokens import Tokens

_ACTOR = "command line"
_OUR_PACKAGES = ("flagd_sdk", "flagd_server")
# As shells report a process that ended by SIGPIPE or SIGINT.
_BROKEN_PIPE = 128 + 13
_INTERRUPTED = 128 + 2
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command: `configure` declares its options, `run` returns the exit status.

    Where `run` is None, `configure` declares further commands, one of which is required.
    """

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int] | None = None


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
        _complain(str(error))
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
    _add_commands(parser, COMMANDS)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except SettingsError as error:
        _complain(*error.faults)
    except ServerError as error:
        _complain(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OUR_PACKAGES:
            raise  # no extra brings it: the installation or the code is broken
        _complain(
            f"the module {error.name!r} is missing; the server needs what its extra brings:"
            " pip install 'flagd-release[server]'"
        )
    return 1


def _add_commands(parser: argparse.ArgumentParser, commands: Sequence[Command]) -> None:
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        if command.run is not None:
            subparser.set_defaults(run=command.run)
        command.configure(subparser)


def _configure_serve(parser: argparse.ArgumentParser) -> None:
    _add_setting(parser, "--host", "FLAGD_HOST", "address to listen on")
    _add_setting(parser, "--port", "FLAGD_PORT", "port to listen on; 0 takes a free one")
    _add_database(parser)
    _add_setting(
        parser,
        "--initial-tokens",
        "FLAGD_INITIAL_TOKENS_FILE",
        "write the first tokens to this file, as JSON, instead of printing them",
    )


def _serve(options: argparse.Namespace) -> int:
    from flagd_server.serving import serve

    settings = _settings(options)

    def application() -> "Flask":
        # Called in the worker, which is the only process that opens the database for good.
        from flagd_server.app import create_app

        return create_app(settings)

    logging.basicConfig(level=settings.log_level.upper(), format=_LOG_FORMAT)
    _prepare_database(settings)
    serve(
        application,
        host=settings.host,
        port=settings.port,
        threads=settings.threads,
        access_log=settings.access_log,
    )
    return 0


def _prepare_database(settings: Settings) -> None:
    """Make an empty database one to begin with; closed again before the server opens it."""
    from flagd_server.clock import SystemClock
    from flagd_server.services.environments import Environments
    from flagd_server.services.first_start import first_start
    from flagd_server.services.publishing import Publisher
    from flagd_server.services.snapshots import Snapshots
    from flagd_server.services.tokens import Tokens
    from flagd_server.storage import open_storage

    def deliver(tokens: "InitialTokens") -> None:
        if settings.initial_tokens_file is None:
            _print_tokens(tokens, is_admin_known=settings.admin_token is not None)
        else:
            _write_tokens(tokens, Path(settings.initial_tokens_file))

    clock = SystemClock()
    with closing(open_storage(settings.database, as_server=True)) as storage:
        publisher = Publisher(Snapshots(storage), _Nobody(), clock)
        first_start(
            storage,
            Environments(storage, publisher),
            Tokens(storage, clock),
            deliver,
            settings.admin_token,
        )


class _Nobody:
    """The listeners of a server that has not started."""

    def publish(self, environment: str, sequence: int, event: bytes) -> None:
        pass


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


def _configure_token(parser: argparse.ArgumentParser) -> None:
    _add_commands(parser, TOKEN_COMMANDS)


def _configure_token_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scope", required=True, choices=SCOPES)
    parser.add_argument("--name", required=True, type=_text, help="whose it is, for the audit")
    parser.add_argument("--environment", type=_text, help="with the scope sdk: the one it is for")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="server",
        help="client: for devices that people own, to whose reports the guard does not listen",
    )
    _add_database(parser)


def _create_token(options: argparse.Namespace) -> int:
    def create(tokens: "Tokens") -> None:
        created = tokens.create(
            options.scope, options.name, options.environment, options.kind, actor=_ACTOR
        )
        # The text alone on stdout, so that it can be piped to where it is needed.
        print(f"{created.token.id} is shown this once:", file=sys.stderr)
        print(created.text)

    return _with_tokens(options, create)


def _list_tokens(options: argparse.Namespace) -> int:
    def show(tokens: "Tokens") -> None:
        for token in tokens.list():
            state = (
                "alive" if token.revoked_at is None else f"revoked {format_time(token.revoked_at)}"
            )
            print(f"{token.id}  {token.prefix:<24}  {token.kind:<6}  {state:<32}  {token.name}")

    return _with_tokens(options, show)


def _configure_token_revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("token_id", metavar="ID", type=_text, help="as `token list` shows it")
    _add_database(parser)


def _revoke_token(options: argparse.Namespace) -> int:
    def revoke(tokens: "Tokens") -> None:
        tokens.revoke(options.token_id, actor=_ACTOR)

    return _with_tokens(options, revoke)


def _with_tokens(options: argparse.Namespace, use: "Callable[[Tokens], None]") -> int:
    from flagd_server.clock import SystemClock
    from flagd_server.services.tokens import Tokens
    from flagd_server.storage import open_storage

    settings = _settings(options)
    if not Path(settings.database).exists():
        raise SettingsError([f"FLAGD_DATABASE: there is no {settings.database}"])
    with closing(open_storage(settings.database)) as storage:
        use(Tokens(storage, SystemClock()))
    return 0


def _configure_backtest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="recorded events as JSON lines, the policy first; - for standard input",
    )


def _backtest(options: argparse.Namespace) -> int:
    try:
        # A descriptor of its own for standard input too, which may have been started closed.
        with open(0 if options.file == "-" else options.file, encoding="utf-8") as lines:
            for answer in backtest(lines):
                print(answer, flush=True)
    except (RecordError, UnicodeDecodeError) as error:
        _complain(f"{options.file}: {error}")
        return 1
    return 0


def _text(argument: str) -> str:
    """Return an argument that is text; Python passes on what it could not decode as surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("expected text in UTF-8") from None
    return argument


def _add_database(parser: argparse.ArgumentParser) -> None:
    _add_setting(parser, "--database", "FLAGD_DATABASE", "path of the SQLite file")


def _add_setting(
    parser: argparse.ArgumentParser, option: str, variable: str, description: str
) -> None:
    """Declare an option that stands for an environment variable, and is read as that one is."""
    parser.add_argument(option, dest=variable, help=f"{description} ({variable})")


def _settings(options: argparse.Namespace) -> Settings:
    given = {
        name: value
        for name, value in vars(options).items()
        if name.startswith("FLAGD_") and value is not None
    }
    return Settings.from_environ({**os.environ, **given})


def _complain(*messages: str) -> None:
    for message in messages:
        print(f"flagd-server: {message}", file=sys.stderr)


TOKEN_COMMANDS = (
    Command("create", "make a token and print it, once", _configure_token_create, _create_token),
    Command("list", "list tokens, without their secrets", _add_database, _list_tokens),
    Command("revoke", "end a token at once", _configure_token_revoke, _revoke_token),
)


COMMANDS = (
    Command("serve", "run the server", _configure_serve, _serve),
    Command("token", "create, list and revoke tokens", _configure_token),
    Command(
        "backtest",
        "run recorded events through the guard; answers each with one line of JSON",
        _configure_backtest,
        _backtest,
    ),
)
"""Every sub-command: a new one is a line here."""
