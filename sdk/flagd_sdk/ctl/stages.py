"""The stages of a rollout, as they are written on a command line."""

from typing import Any

import click

from flagd_sdk.ctl.durations import parse_duration
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.splits import parse_percent

stage_option = click.option(
    "--stage",
    "stage_texts",
    multiple=True,
    metavar="PERCENT[:BAKE[:EXPOSURES]]",
    help="Such as 5:10m:1000. Repeatable.",
)


def stage_of(text: str) -> dict[str, Any]:
    """Return the stage of a text such as "5:10m:1000".

    Raises:
        CommandError: it is none.
    """
    percent, _, rest = text.partition(":")
    bake, _, exposures = rest.partition(":")
    try:
        return {
            "percent": parse_percent(percent),
            "bake_time_s": parse_duration(bake) if bake else 0.0,
            "min_exposures": int(exposures) if exposures else 0,
        }
    except ValueError:
        message = f"--stage {text!r}: expected PERCENT[:BAKE[:EXPOSURES]], such as 5:10m:1000"
        raise CommandError(message, Exit.USAGE) from None
