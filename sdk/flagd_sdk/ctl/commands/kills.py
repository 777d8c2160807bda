"""kill, restore"""

from typing import Any

import click

from flagd_sdk.ctl.api import Json, at
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Rendered, styled
from flagd_sdk.ctl.session import (
    DURATION,
    Session,
    ask_person,
    command,
    complete_flags,
    configuration_path,
    environment_option,
    flag_argument,
    root,
    standing_kill,
)
from flagd_sdk.ctl.splits import parse_percent
from flagd_sdk.ctl.stages import stage_of, stage_option
from flagd_sdk.ctl.wording import kill_words, served_words

MAX_WAIT_S = 30.0

wait_option = click.option(
    "--wait",
    "wait_s",
    type=DURATION,
    help=f"Wait so long (at most {MAX_WAIT_S:g}s) until all processes confirm; exit 5 if not.",
)


def wait_query(wait_s: float | None) -> dict[str, str]:
    if wait_s is None:
        return {}
    if wait_s > MAX_WAIT_S:
        raise CommandError(f"--wait: expected at most {MAX_WAIT_S:g}s", Exit.USAGE)
    return {"wait_s": f"{wait_s:.3f}"}


def receipt_exit(document: Json) -> Exit:
    """Return INCONCLUSIVE where processes were asked for and have not confirmed: they may still
    serve the feature.
    """
    receipt = document.get("receipt")
    if receipt is None or receipt["confirmed"] >= receipt["processes"]:
        return Exit.OK
    return Exit.INCONCLUSIVE


def render_receipt(document: Json) -> Rendered:
    receipt = document.get("receipt")
    if receipt is None or not receipt["processes"]:
        return
    is_done = receipt["confirmed"] >= receipt["processes"]
    words = f"  {receipt['confirmed']} of {receipt['processes']} processes confirmed"
    if receipt["last_confirmed_after_ms"] is not None:
        words += f", the last after {receipt['last_confirmed_after_ms']:.0f} ms"
    yield styled(words, "green" if is_done else "yellow")
    for instance in receipt["unconfirmed"]:  # the first of them
        yield f"    not yet: {instance}"


def render_killed_flags(document: Json) -> Rendered:
    if not document["flags"]:
        yield "no flags: nothing was killed"
    for each in document["flags"]:
        done = "would be killed" if not each["killed"] else "is off"
        again = ", killed before" if each["already"] else ""
        yield styled(f"{each['flag']} {done}{again}", "yellow" if not each["killed"] else "red")
    yield from render_receipt(document)


@command(root)
@click.argument("flag", required=False, shell_complete=complete_flags)
@environment_option
@click.option("--reason", required=True, help="Stands in the history.")
@click.option("--tag", help="Every flag that carries it, instead of one flag.")
@click.option(
    "--source",
    type=click.Choice(("operator", "deployment", "alert")),
    default="operator",
    show_default=True,
)
@click.option("--dry-run", is_flag=True, help="With --tag: say which it would be.")
@wait_option
def kill(
    session: Session,
    flag: str | None,
    environment: str,
    tag: str | None,
    wait_s: float | None,
    dry_run: bool,
    **body: Any,
) -> Exit:
    """Turn a flag off in every process, now, until someone restores it. Again is harmless."""
    if (flag is None) == (tag is None) or (dry_run and tag is None):
        raise CommandError("expected FLAG, or --tag (with --dry-run)", Exit.USAGE)
    query = wait_query(wait_s)
    if tag is not None:
        path = at("environments", environment, "kill")
        done = session.api.post(path, {**body, "tag": tag, "dry_run": dry_run}, query=query)
        session.out.show(done, render_killed_flags)
        return receipt_exit(done)
    path = configuration_path(str(flag), environment, "kill")
    done = session.api.post(path, body, query=query)
    session.out.show(done, lambda killed: _render_killed(str(flag), environment, killed))
    return receipt_exit(done)


def _render_killed(flag: str, environment: str, killed: Json) -> Rendered:
    kill_ = killed["kill"]
    before = f", and was before: {kill_words(kill_)}" if killed["already"] else ""
    yield styled(f"{flag} in {environment} is off{before}", "bold red")
    yield f"  {kill_['id']}, version {killed['version']}"
    yield from render_receipt(killed)


@command(root)
@flag_argument
@environment_option
@click.option(
    "--kill", "kill_id", metavar="ID", help="The kill to lift; a person may leave it out."
)
@click.option("--reason", default="", help="Why it may be on again.")
@click.option(
    "--fixed-in", metavar="SERVICE@VERSION", help="The version in which it was mended, instead."
)
@click.option("--start", "start", metavar="PERCENT", help="Begin again from so few; 1 if left out.")
@click.option("--keep", is_flag=True, help="Begin again with the shares there were.")
@click.option("--leave-out-exposed", is_flag=True, help="Those who met the fault come last.")
@click.option("--template", help="Start a rollout with it, by a template's stages.")
@stage_option
def restore(
    session: Session,
    flag: str,
    environment: str,
    kill_id: str | None,
    stage_texts: tuple[str, ...],
    **given: Any,
) -> Exit:
    """Lift the kill of a flag. Off is easy; on has ceremony: it is this kill that is lifted."""
    body = _release(given)
    if given["template"] or stage_texts:
        rollout: Json = {"template": given["template"]} if given["template"] else {}
        if stage_texts:
            rollout["stages"] = [stage_of(text) for text in stage_texts]
        body["rollout"] = rollout
    body["kill"] = kill_id or _ask_which(session, flag, environment)
    path = configuration_path(flag, environment, "restore")
    restored = session.api.post(path, body)
    session.out.show(
        restored,
        lambda now: [
            styled(f"{flag} in {environment} is restored (version {now['version']})", "green"),
            f"  it serves {served_words(now)}",
        ],
    )
    return Exit.OK


def _release(given: dict[str, Any]) -> Json:
    """Return why the flag may be on again, and for how many."""
    body: Json = {"reason": given["reason"]} if given["reason"] else {}
    if given["fixed_in"] is not None:
        service, _, version = given["fixed_in"].rpartition("@")
        if not service or not version:
            raise CommandError("--fixed-in: expected SERVICE@VERSION", Exit.USAGE)
        body["fixed_in"] = {"service": service, "version": version}
    if not body:
        raise CommandError("expected --reason or --fixed-in", Exit.USAGE)
    if given["start"] is not None:
        try:
            body["start_percent"] = parse_percent(given["start"])
        except ValueError as error:
            raise CommandError(f"--start: {error}", Exit.USAGE) from None
    body |= {name: True for name in ("keep", "leave_out_exposed") if given[name]}
    return body


def _ask_which(session: Session, flag: str, environment: str) -> str:
    kill_ = standing_kill(session, flag, environment)
    if kill_ is None:
        raise CommandError(f"{flag} in {environment} is not killed", Exit.CONFLICT)
    session.out.note(f"{flag} in {environment}: {kill_words(kill_)}")
    ask_person(f"lift {kill_['id']}? (or name it by --kill)")
    return str(kill_["id"])
