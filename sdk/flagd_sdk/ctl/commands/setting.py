"""set: how a flag behaves in an environment"""

from typing import Any

import click

from flagd_sdk.ctl.api import Json
from flagd_sdk.ctl.differences import change_words, changes_between, plain_configuration
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Rendered
from flagd_sdk.ctl.session import (
    Session,
    command,
    configuration_path,
    environment_option,
    flag_argument,
    root,
)
from flagd_sdk.ctl.splits import split_of
from flagd_sdk.ctl.wording import kill_words, serve_words, served_words, state_words
from flagd_sdk.ctl.yaml_files import read_one


@command(root, "set")
@flag_argument
@environment_option
@click.option("--enable/--disable", "enabled", default=None, help="Turn it on, or off.")
@click.option("--variant", help="Serve this one to everybody.")
@click.option(
    "--percent",
    "percents",
    multiple=True,
    metavar="[VARIANT=]PERCENT",
    help="Serve it to so many; the off variant to the rest. Repeatable.",
)
@click.option("--rules", "rules_file", metavar="FILE", help="YAML or JSON: the list of rules.")
@click.option("--guard", type=click.Choice(("enforce", "observe", "off")), help="Its mode.")
@click.option(
    "--if-version", type=click.IntRange(1), help="Only if this version is still the newest."
)
@click.option("--comment", default="", help="Stands in the history.")
def set_(
    session: Session,
    flag: str,
    environment: str,
    if_version: int | None,
    comment: str,
    **given: Any,
) -> Exit:
    """Change how a flag behaves in an environment.

    What somebody changes between the look and the change is never overwritten: that is a conflict
    (exit 4). A killed flag can be changed and stays off; see restore.
    """
    if all(value in (None, ()) for value in given.values()):
        message = "nothing to set; expected --enable, --disable, --variant, --percent, …"
        raise CommandError(message, Exit.USAGE)
    if given["variant"] is not None and given["percents"]:
        raise CommandError("either --variant or --percent", Exit.USAGE)
    rules = None if given["rules_file"] is None else _rules(given["rules_file"])
    before = session.api.get(configuration_path(flag, environment))
    body = _body(before, given, rules) | ({"comment": comment} if comment else {})
    try:
        after = session.api.patch(
            configuration_path(flag, environment), body, if_version or before["version"]
        )
    except CommandError as error:
        raise _with_other(session, flag, environment, error) from error
    session.out.show(after, lambda now: _render(before, now))
    return Exit.OK


def _rules(path: str) -> Any:
    document = read_one(path)
    value = document.value
    if isinstance(value, dict) and value.keys() == {"rules"}:
        value = value["rules"]
    if not isinstance(value, list):
        raise CommandError(f"{path}: expected a list of rules", Exit.USAGE)
    return value


def _body(before: Json, given: dict[str, Any], rules: Any) -> Json:
    body: Json = {}
    if given["enabled"] is not None:
        body["enabled"] = given["enabled"]
    if given["variant"] is not None:
        body["default_serve"] = {"variant": given["variant"]}
    if given["percents"]:
        try:
            body["default_serve"] = split_of(
                given["percents"],
                list(before["variants"]),
                before["off_variant"],
                before["default_serve"],
            )
        except ValueError as error:
            raise CommandError(f"--percent: {error}", Exit.USAGE) from None
    if rules is not None:
        body["rules"] = rules
    if given["guard"] is not None:
        body["guard"] = before["guard"] | {"mode": given["guard"]}
    return body


def _with_other(session: Session, flag: str, environment: str, error: CommandError) -> CommandError:
    """Return the error; where someone else was first, with who that was and what they did."""
    if error.status != 412:
        return error
    now = session.api.get(configuration_path(flag, environment))
    said = f" (“{now['comment']}”)" if now["comment"] else ""
    message = (
        f"someone else was first: version {now['version']} of {flag} in {environment} is by"
        f" {now['actor']}{said} and serves {serve_words(now['default_serve'])};"
        f" nothing was changed, look at it (flagctl history {flag} -e {environment}) and try again"
    )
    return CommandError(message, Exit.CONFLICT, status=412)


def _render(before: Json, now: Json) -> Rendered:
    flag, environment = now["flag"], now["environment"]
    changes = changes_between(plain_configuration(before, flag), plain_configuration(now, flag))
    if not changes:
        yield f"{flag} in {environment} is so already (version {now['version']})"
        return
    yield f"{flag} in {environment}, version {now['version']}:"
    for change in changes:
        yield f"  {change_words(change)}"
    if now["kill"] is not None:
        yield f"  it stays off: {kill_words(now['kill'])}"
    else:
        yield f"  it is {state_words(now)} and serves {served_words(now)}"
