"""gate, gates"""

import time

import click

from flagd_sdk.ctl.api import Json, at
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Listing, Rendered, clean, plain_table, styled
from flagd_sdk.ctl.session import DURATION, Session, command, environment_option, root
from flagd_sdk.ctl.waiting import looks
from flagd_sdk.ctl.wording import STATE_STYLES, time_words

_EXITS = {"healthy": Exit.OK, "unhealthy": Exit.REFUSED}


@command(root)
@click.argument("gate")
@environment_option
@click.option("--wait", "is_waiting", is_flag=True, help="Until it is healthy or unhealthy.")
@click.option(
    "--timeout", "timeout_s", type=DURATION, default="10m", show_default=True, help="With --wait."
)
@click.option("--interval", "every_s", type=DURATION, default="5s", show_default=True)
@click.option("--approve", "approval", metavar="REASON", help="Give a person's approval first.")
def gate(
    session: Session,
    gate: str,
    environment: str,
    is_waiting: bool,
    timeout_s: float,
    every_s: float,
    approval: str | None,
) -> Exit:
    """Ask whether a release may go on: exit 0 healthy, 1 unhealthy, 5 nobody can tell (yet)."""
    path = at("environments", environment, "gates", gate)
    if approval is not None:
        session.api.post(f"{path}/approve", {"reason": approval})
    verdict = session.api.get(f"{path}/verdict")
    if is_waiting:
        verdict = _wait(session, path, verdict, every_s, timeout_s)
    session.out.show(verdict, _render)
    return _EXITS.get(verdict["verdict"], Exit.INCONCLUSIVE)


def _wait(session: Session, path: str, verdict: Json, every_s: float, timeout_s: float) -> Json:
    """Return the first verdict that is one, or the last where the time is up."""
    said = ""
    until = time.monotonic() + timeout_s
    if every_s <= 0:
        raise CommandError("--interval: expected more than 0", Exit.USAGE)
    for verdict in looks(
        lambda: session.api.get(f"{path}/verdict"),
        every_s,
        timeout_s,
        lambda error: session.out.note(str(error)),
    ):
        if verdict["verdict"] in _EXITS:
            break
        why = "; ".join(
            f"{reason['check']}: {reason['detail']}"
            for reason in clean(verdict["reasons"])
            if reason["verdict"] not in _EXITS
        )
        if why != said:
            session.out.note(f"waiting, {until - time.monotonic():.0f} s at most: {why}")
            said = why
    return verdict


def _render(verdict: Json) -> Rendered:
    yield f"gate {verdict['gate']} in {verdict['environment']}"
    yield from render_reasons(verdict)


def render_reasons(verdict: Json) -> Rendered:
    """Yield a verdict with what each check says."""
    yield styled(f"  {verdict['verdict']}", STATE_STYLES.get(verdict["verdict"], ""))
    table = plain_table("", "", "")
    table.show_header = False
    for reason in verdict["reasons"]:
        word = styled(reason["verdict"], STATE_STYLES.get(reason["verdict"], ""))
        table.add_row(f"    {reason['check']}", word, reason["detail"])
    yield table


@command(root)
@environment_option
def gates(session: Session, environment: str) -> Exit:
    """List the gates of an environment."""
    found = session.api.get(at("environments", environment, "gates"))
    session.out.show(found, _render_list)
    return Exit.OK


def _render_list(document: Json) -> Rendered:
    table = Listing("GATE", "CHANGED", "DESCRIPTION", nothing="no gates")
    for each in document["items"]:
        table.add_row(each["gate"], time_words(each["updated_at"]), each["description"])
    yield table
