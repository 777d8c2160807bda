"""history, rollback"""

from typing import Any

import click

from flagd_sdk.ctl.api import Json
from flagd_sdk.ctl.differences import change_words, changes_between, plain_configuration
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Listing, Rendered, clean
from flagd_sdk.ctl.session import (
    Session,
    command,
    configuration_path,
    environment_option,
    flag_argument,
    root,
)
from flagd_sdk.ctl.wording import served_words, state_words, time_words

_FAR_BACK = 1_000


@command(root)
@flag_argument
@environment_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
def history(session: Session, flag: str, environment: str, limit: int) -> Exit:
    """Show who changed a flag, when, and what each change was."""
    path = configuration_path(flag, environment, "history")
    # One more than asked for: the oldest is shown by what it changed as well.
    found = session.api.pages(path, limit + 1)
    items = [
        version | {"changes": [change._asdict() for change in _changes(found, index)]}
        for index, version in enumerate(found[:limit])
    ]
    document = {"environment": environment, "flag": flag, "items": items}
    session.out.show(document, lambda _: _render_history(found, limit))
    return Exit.OK


def _changes(versions: list[Json], index: int) -> list[Any]:
    if index + 1 >= len(versions):
        return []
    after, before = versions[index], versions[index + 1]
    was, now = (
        plain_configuration(each, each["flag"]) | {"variants": each["variants"]}
        for each in (before, after)
    )
    return changes_between(was, now)


def _render_history(versions: list[Json], limit: int) -> Rendered:
    shown = clean(versions)
    table = Listing("VERSION", "AT", "BY", "ACTION", "WHAT", nothing="no versions")
    for index, version in enumerate(shown[:limit]):
        words = [change_words(change) for change in _changes(shown, index)]
        if version["action"] == "kill" and version["kill"] is not None:
            words.append(str(version["kill"]["reason"]))
        if version.get("healthy_at") is not None:
            words.append(f"healthy since {time_words(version['healthy_at'])}")
        if version["comment"] and version["comment"] not in words:
            words.append(f"“{version['comment']}”")
        table.add_row(
            str(version["version"]),
            time_words(version["at"]),
            version["actor"],
            version["action"],
            "\n".join(words),
        )
    yield table


@command(root)
@flag_argument
@environment_option
@click.option("--to", "version", type=click.IntRange(1), help="A version.")
@click.option("--last-healthy", is_flag=True, help="The newest that was marked as healthy.")
@click.option("--comment", default="", help="Stands in the history.")
def rollback(
    session: Session,
    flag: str,
    environment: str,
    version: int | None,
    last_healthy: bool,
    comment: str,
) -> Exit:
    """Go back to an earlier version of a flag's configuration. A kill goes on standing."""
    if (version is None) != last_healthy:
        raise CommandError("expected either --to or --last-healthy", Exit.USAGE)
    seen = session.api.get(configuration_path(flag, environment))["version"]
    if version is None:
        version = _last_healthy(session, flag, environment, seen)
    body = {"version": version, "comment": comment}
    path = configuration_path(flag, environment, "rollback")
    done = session.api.post(path, body, seen)
    session.out.show(
        done,
        lambda now: [
            f"{flag} in {environment} is as in version {version}: {served_words(now)}"
            f" ({state_words(now)}, version {now['version']})"
        ],
    )
    return Exit.OK


def _last_healthy(session: Session, flag: str, environment: str, seen: int) -> int:
    path = configuration_path(flag, environment, "history")
    for version in session.api.pages(path, _FAR_BACK):
        if version.get("healthy_at") is not None and version["version"] != seen:
            return int(version["version"])
    message = f"no earlier version of {flag} in {environment} is known as healthy"
    raise CommandError(message, Exit.CONFLICT)
