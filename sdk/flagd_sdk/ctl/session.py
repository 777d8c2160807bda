"""What every command is given, and how one is declared."""

import sys
from collections.abc import Callable
from functools import cached_property, wraps
from importlib.metadata import version
from typing import Any

import click

from flagd_sdk.ctl.api import Api, Json, at
from flagd_sdk.ctl.durations import parse_duration
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Output, drop_output
from flagd_sdk.ctl.settings import read_settings

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Session:
    """One command at work: the server it speaks to, and where it prints."""

    def __init__(
        self, url: str | None = None, token_file: str | None = None, out: Output | None = None
    ) -> None:
        self._url = url
        self._token_file = token_file
        self.out = out or Output()

    @cached_property
    def api(self) -> Api:
        """The server; settings are read when it is asked for the first time."""
        return Api(*read_settings(self._url, self._token_file))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("flagd-release"), message="%(version)s")
def root() -> None:
    """Flags, rollouts and kills on any server of flagd.

    FLAGD_URL is the server's address, FLAGD_TOKEN (or FLAGD_TOKEN_FILE) a token, FLAGD_ENVIRONMENT
    the environment where none is given.

    \b
    Exit status:
      0  done; healthy, completed
      1  refused, unhealthy, failed; with apply --check: something differs
      2  the command line, a setting or a file can't be used
      3  the server can't be reached
      4  conflict: someone else was first, or the present state doesn't allow it
      5  the time was up, or nobody can tell yet
    """


environment_option: Decorator = click.option(
    "-e",
    "--environment",
    envvar="FLAGD_ENVIRONMENT",
    default="production",
    show_default=True,
    show_envvar=True,
    help="Where.",
)
_COMMON: tuple[Decorator, ...] = (
    click.option("--url", metavar="URL", help="The server; FLAGD_URL if left out."),
    click.option("--token-file", metavar="FILE", help="Holds the token; comes before FLAGD_TOKEN."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but what went wrong."),
)


def command(group: click.Group, name: str | None = None) -> Decorator:
    """Declare a command: its function is given a `Session` first, and returns its `Exit`."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(
            url: str | None, token_file: str | None, as_json: bool, quiet: bool, **given: Any
        ) -> int:
            out = Output(as_json=as_json, is_quiet=quiet)
            try:
                return int(function(Session(url, token_file, out), **given))
            except BrokenPipeError:  # before click makes another status of it
                return int(drop_output())
            except CommandError as error:
                out.fail(error)
                return int(error.exit)

        declared: Callable[..., Any] = run
        for option in reversed(_COMMON):
            declared = option(declared)
        group.add_command(click.command(name)(declared))
        return function

    return declare


def complete_flags(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the flags that begin so, for the shell; none where the server can't be asked."""
    given = context.params
    try:
        api = Session(given.get("url"), given.get("token_file")).api
        keys = [flag["key"] for flag in api.get(at("flags"), archived="false")["items"]]
    except CommandError:
        return []
    return [key for key in keys if key.startswith(incomplete)]


flag_argument: Decorator = click.argument("flag", shell_complete=complete_flags)


class DurationType(click.ParamType[float]):
    """A length of time, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = DurationType()


def configuration_path(flag: str, environment: str, *rest: str) -> str:
    return at("flags", flag, "environments", environment, *rest)


def ask_person(question: str) -> None:
    """Go on only with a person's yes; where there is nobody, say what to do instead.

    Raises:
        CommandError: there is no terminal, or the person would rather not.
    """
    if not sys.stdin.isatty():
        raise CommandError(f"{question}: nobody is here to say yes", Exit.USAGE)
    if not click.confirm(question, err=True):
        raise CommandError("left as it is", Exit.REFUSED)


def standing_kill(session: Session, flag: str, environment: str) -> Json | None:
    """Return the kill that stands on a flag, or None."""
    kill: Json | None = session.api.get(configuration_path(flag, environment))["kill"]
    return kill
