"""Runs the command line, and turns whatever happens into one line and an exit status."""

import sys
from collections.abc import Sequence

import click

from flagd_sdk.ctl.commands import (
    deployments,
    evidence,
    flags,
    gates,
    gitops,
    history,
    kills,
    rollouts,
    setting,
    watch,
)
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Output, drop_output
from flagd_sdk.ctl.session import root

# Importing them declares their commands.
COMMANDS = (flags, setting, history, rollouts, kills, evidence, watch, gates, deployments, gitops)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Never raises but at an exit of the shell's completion."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = root.main(given, prog_name="flagctl", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        return Exit.INTERRUPTED
    except click.ClickException as error:
        return _refuse(given, error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return drop_output()
    except Exception as error:  # the edge to a person or a pipeline: no traceback, ever
        message = f"a fault of flagctl, or a server of another version: {_named(error)}"
        Output(as_json="--json" in given).fail(CommandError(message, Exit.INTERNAL))
        return Exit.INTERNAL
    return int(status or 0)


def _refuse(given: Sequence[str], error: click.ClickException) -> Exit:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return Exit.USAGE
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see {error.ctx.command_path} --help)"
    message = error.format_message() + hint
    Output(as_json="--json" in given).fail(CommandError(message, Exit.USAGE))
    return Exit.USAGE


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
