"""why: the evidence of a kill, as a chart in the terminal"""

from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from flagd_sdk.ctl.api import Json
from flagd_sdk.ctl.charts import draw_evidence, draw_share
from flagd_sdk.ctl.commands.kills import render_receipt
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Output, Rendered, plain_table, styled
from flagd_sdk.ctl.session import (
    Session,
    command,
    configuration_path,
    environment_option,
    flag_argument,
    root,
)
from flagd_sdk.ctl.wording import STATE_STYLES, kill_words, state_words, time_words

_MAX_WIDTH, _HEIGHT, _BAR_WIDTH = 100, 12, 20
_MOST_KINDS = 8
_METRICS = {"errors": "failed", "slow:p99": "were slow (p99)", "slow:p90": "were slow (p90)"}


@command(root)
@flag_argument
@environment_option
@click.option("--evidence", "evidence_id", metavar="ID", help="Of an earlier decision.")
def why(session: Session, flag: str, environment: str, evidence_id: str | None) -> Exit:
    """Show why a flag was killed: the evidence as it grew, rates, kinds of errors.

    Of a flag that stands, what the guard has against it so far.
    """
    configuration = session.api.get(configuration_path(flag, environment))
    evidence = session.api.get(configuration_path(flag, environment, "evidence"))
    kill = configuration["kill"]
    wanted = evidence_id or _newest(kill, evidence["reports"])
    report = None
    if wanted is not None:
        report = session.api.get(configuration_path(flag, environment, "evidence", wanted))
    document = {
        "environment": environment,
        "flag": flag,
        "state": state_words(configuration),
        "kill": kill,
        "report": report,
        "receipt": None if kill is None else _receipt(session, flag, environment),
        "watch": evidence["watch"],
        "running": evidence["running"],
    }
    session.out.show(document, lambda shown: _render(shown, session.out))
    return Exit.OK


def _receipt(session: Session, flag: str, environment: str) -> Json | None:
    """Return whom the kill that stands has reached; None where it was lifted in this moment."""
    try:
        found: Json = session.api.get(configuration_path(flag, environment, "kill"))["receipt"]
    except CommandError as error:
        if error.status != 404:
            raise
        return None
    return found


def _newest(kill: Json | None, reports: Sequence[Json]) -> str | None:
    """Return the report to show: the one behind the kill that stands, or else the newest.

    A kill by a person has none, and an older report is not the reason for it.
    """
    if kill is not None:
        found: str | None = kill["evidence"]
        return found
    return str(reports[0]["id"]) if reports else None


def _render(document: Json, out: Output) -> Rendered:
    state = document["state"]
    heading = f"{document['flag']} in {document['environment']}: {state}"
    yield styled(heading, STATE_STYLES[state])
    if document["kill"] is not None:
        yield kill_words(document["kill"])
        yield from render_receipt(document)
    report = document["report"]
    if report is not None:
        if document["kill"] is None:
            yield f"the guard decided at {time_words(report['at'])} (now it is {state}):"
        yield from _render_rollback(report)
        said = document["kill"]["reason"] if document["kill"] is not None else ""
        yield from _render_evidence(report, out, said)
        yield from _render_kinds(report["error_kinds"])
        for note in report["notes"]:
            # Whom a kill that stands has reached is said above, as of now.
            if note["kind"] != "told" or document["kill"] is None:
                yield _note_words(note)
    elif document["kill"] is None and document["running"] is not None:
        yield from _render_evidence(document["running"], out)
        for blind in document["running"]["blind"]:
            yield styled(f"the guard cannot see: {blind['detail']}", "yellow")
    elif document["kill"] is None:
        yield f"the guard: {document['watch']['mode']}; {document['watch']['reason']}"


def _render_rollback(report: Json) -> Rendered:
    back = report.get("rollback")
    if back is not None:
        words = (
            f"it went back from {back['from_percent']:g} % of {back['variant']} to"
            f" {back['to_percent']:g} %, as in version {back['to_version']}, which was healthy"
        )
        yield styled(words, "bold")
    if report.get("not_rolled_back") is not None:
        yield f"killed, and not rolled back: {report['not_rolled_back']}"


def _render_evidence(evidence: Json, out: Output, said: str = "") -> Iterator[RenderableType]:
    decision = evidence["decision"]
    if decision is not None and decision["reason"] != said:
        yield Text(decision["reason"], "bold")
    comparison = _decisive(evidence["comparisons"], decision)
    if comparison is not None:
        yield ""
        if comparison["path"]:
            path = [(point["t"], point["e_value"]) for point in comparison["path"]]
            # Nothing was against it before: the quiet belongs to the picture.
            path.insert(0, (min(evidence["life_started_at"], path[0][0]), 1.0))
            yield Text(
                "evidence against the feature, and the threshold at which it goes off", "dim"
            )
            yield from draw_evidence(
                path,
                comparison["threshold"],
                width=min(out.console.width, _MAX_WIDTH),
                height=_HEIGHT,
            )
        yield ""
        yield from _render_arms(comparison, out.console.width)
    for verdict in evidence.get("versions", ()):
        yield f"{verdict['service']}: {verdict['verdict']} – {verdict['reason']}"


def _decisive(comparisons: Sequence[Json], decision: Json | None) -> Json | None:
    """Return the comparison that decided, or the one that is nearest to it."""
    named = [
        each
        for each in comparisons
        if decision is not None
        and each["split"] == decision["split"]
        and each["treatment"]["variant"] == decision["treatment"]
    ]
    among = named or list(comparisons)

    def nearness(each: Json) -> float:
        return float(each["e_value"]) / (float(each["threshold"]) or 1.0)

    return max(among, key=nearness, default=None)


def _render_arms(comparison: Json, width: int) -> Iterator[RenderableType]:
    arms = [comparison["treatment"], comparison["control"]]
    what = _METRICS.get(comparison["metric"], "failed")
    most = max(arm["error_rate"] for arm in arms)
    bar_width = _BAR_WIDTH if width >= 90 else _BAR_WIDTH // 4
    table = plain_table("VARIANT", "EXPOSURES", "ERRORS", "RATE", "", f"USERS THAT {what.upper()}")
    for name in ("EXPOSURES", "ERRORS", "RATE"):
        next(each for each in table.columns if each.header == name).justify = "right"
    for arm, style in zip(arms, ("red", "green"), strict=True):
        table.add_row(
            arm["variant"],
            f"{arm['exposures']:,}",
            f"{arm['errors']:,}",
            f"{arm['error_rate']:.2%}",
            draw_share(arm["error_rate"], most, bar_width, style),
            f"{arm['failing_units']:,}",
        )
    yield table
    units = sum(arm["failing_units"] for arm in arms)
    here = comparison["treatment"]["failing_units"]
    yield (
        f"{here:,} of {units:,} users that {what} were served {comparison['treatment']['variant']};"
        f" {comparison['expected_share']:.1%} would be, if it did no harm"
    )


def _render_kinds(kinds: Sequence[Json]) -> Iterator[RenderableType]:
    if not kinds:
        return
    yield ""
    table = plain_table("COUNT", "VARIANT", "KIND", "WHERE", "SAMPLE")
    table.columns[0].justify = "right"
    for kind in sorted(kinds, key=lambda each: -each["count"])[:_MOST_KINDS]:
        count = f"{kind['count']:,}"
        table.add_row(count, kind["variant"], kind["kind"], kind["where"], kind["sample"])
    yield table
    if len(kinds) > _MOST_KINDS:
        yield f"and {len(kinds) - _MOST_KINDS} kinds more"


def _note_words(note: dict[str, Any]) -> str:
    document = note["document"]
    if note["kind"] == "told":
        words = f"{document['confirmed']} of {document['processes']} processes confirmed"
        last_ms = document["confirmed_after_ms"]["100"]
        return words + ("" if last_ms is None else f", the last after {last_ms:.0f} ms")
    before, after = document["before"], document["after"]
    return (
        f"{note['window_s'] // 60} minutes after it: errors {document['outcome']}"
        f" ({before['share']:.2%} of requests before, {after['share']:.2%} after)"
    )
