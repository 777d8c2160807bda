"""watch: all flags of an environment, live"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from flagd_sdk.ctl.api import Json, at
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Listing, Rendered, clean, styled
from flagd_sdk.ctl.rollout_views import baked_words, bar, stage_words
from flagd_sdk.ctl.session import (
    DURATION,
    Session,
    command,
    complete_flags,
    configuration_path,
    environment_option,
    root,
)
from flagd_sdk.ctl.waiting import looks
from flagd_sdk.ctl.wording import OPEN_ROLLOUT_STATES, STATE_STYLES, served_words, state_words


@command(root)
@click.argument("flags", nargs=-1, shell_complete=complete_flags)
@environment_option
@click.option("--interval", "every_s", type=DURATION, default="2s", show_default=True)
@click.option("--once", is_flag=True, help="One look.")
def watch(
    session: Session, flags: tuple[str, ...], environment: str, every_s: float, once: bool
) -> Exit:
    """Watch flags live: state, traffic, errors, guard, rollouts. All that are on or killed, if none
    is named.

    In a pipe it prints a line whenever something changes but the counts; with --json each look.
    """
    if every_s < 0.1:
        raise CommandError("--interval: expected 0.1s or more", Exit.USAGE)

    def look() -> Json:
        return _look(session, flags, environment)

    if once:
        session.out.show(look(), lambda seen: [_table(seen)])
    elif session.out.is_live:
        _watch_live(session, look, every_s)
    else:
        _watch_lines(session, look, every_s)
    return Exit.OK


def _look(session: Session, flags: Sequence[str], environment: str) -> Json:
    """Return one look at an environment: a document that programs may rely on."""
    api = session.api
    keys = list(flags) or [f["key"] for f in api.get(at("flags"), archived="false")["items"]]
    configurations = api.get_all(configuration_path(key, environment) for key in keys)
    if not flags:
        configurations = [each for each in configurations if state_words(each) != "off"]
    paths = [(each["flag"], each["environment"]) for each in configurations]
    evidence = api.get_all(configuration_path(*path, "evidence") for path in paths)
    rollouts = api.get_all(configuration_path(*path, "rollouts") for path in paths)
    return {
        "environment": environment,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "flags": [_row(*each) for each in zip(configurations, evidence, rollouts, strict=True)],
    }


def _row(configuration: Json, evidence: Json, rollouts: Json) -> Json:
    running = evidence["running"] or {"comparisons": [], "blind": [], "decision": None}
    arms: dict[str, Json] = {}
    nearest = 0.0
    for comparison in running["comparisons"]:
        nearest = max(nearest, comparison["e_value"] / (comparison["threshold"] or 1.0))
        if comparison["metric"] == "errors":
            for name in ("treatment", "control"):
                arms.setdefault(
                    f"{comparison['split']}/{comparison[name]['variant']}",
                    {"split": comparison["split"], "role": name, **comparison[name]},
                )
    newest = rollouts["items"][0] if rollouts["items"] else None
    return {
        "flag": configuration["flag"],
        "state": state_words(configuration),
        "version": configuration["version"],
        "serves": served_words(configuration),
        "kill": configuration["kill"],
        "arms": list(arms.values()),
        "guard": {
            "mode": evidence["watch"]["mode"],
            "reason": evidence["watch"]["reason"],
            "blind": [blind["detail"] for blind in running["blind"]],
            "evidence_of_threshold": nearest,
        },
        "rollout": newest,
    }


def _table(seen: Json) -> Listing:
    table = Listing(
        "FLAG",
        "STATE",
        "SERVES",
        "EXPOSURES",
        "ERRORS",
        "GUARD",
        "ROLLOUT",
        prose=("GUARD", "ROLLOUT"),
        nothing="no flag is on",
    )
    for row in seen["flags"]:
        table.add_row(
            Text(row["flag"], "bold"),
            styled(row["state"], STATE_STYLES[row["state"]]),
            row["serves"],
            "\n".join(f"{arm['variant']} {arm['exposures']:,}" for arm in row["arms"]),
            "\n".join(f"{arm['errors']:,} ({arm['error_rate']:.2%})" for arm in row["arms"]),
            _guard_text(row),
            Group(*_rollout_parts(row["rollout"])) if row["rollout"] else "",
        )
    return table


def _guard_text(row: Json) -> Text:
    if row["kill"] is not None:
        return Text(row["kill"]["reason"], "red")
    guard = row["guard"]
    if guard["blind"]:
        return Text("blind: " + "; ".join(guard["blind"]), "yellow")
    if not row["arms"]:
        return Text(guard["mode"], "dim")
    near = guard["evidence_of_threshold"]
    return Text(f"{guard['mode']}, {near:.2g} of threshold", "red" if near >= 0.1 else "green")


def _rollout_parts(rollout: Json) -> Iterator[RenderableType]:
    state = rollout["state"]
    if state in OPEN_ROLLOUT_STATES:
        yield bar(rollout)
    yield Text(f"{state.replace('_', ' ')}, {stage_words(rollout)}", STATE_STYLES.get(state, ""))
    if baked_words(rollout):
        yield Text(baked_words(rollout), "dim")
    for wait in rollout["waiting_for"]:
        yield Text(f"waits: {wait['detail']}", "yellow" if state == "waiting" else "dim")


def _watch_live(session: Session, look: Any, every_s: float) -> None:
    last: list[RenderableType] = []
    with Live(console=session.out.console, auto_refresh=False, screen=True) as live:

        def draw(heading: Text, body: list[RenderableType]) -> None:
            live.update(Group(heading, "", *body), refresh=True)

        def missed(error: CommandError) -> None:
            # What is seen is old: it must not look like health.
            draw(Text(f"{clean(str(error))}; what follows is old", "bold red"), last)

        for seen in looks(look, every_s, None, missed):
            shown = clean(seen)
            last = [_table(shown)]
            draw(Text(f"{shown['environment']} at {shown['at']}, ctrl-C ends it", "dim"), last)


def _watch_lines(session: Session, look: Any, every_s: float) -> None:
    known: dict[str, tuple[Any, ...]] = {}
    for seen in looks(look, every_s, None, lambda error: session.out.note(str(error))):
        if session.out.as_json:
            session.out.line(seen)
            continue
        for row in seen["flags"]:
            rollout = row["rollout"] or {"id": None, "state": None, "stage": None}
            mark = (
                row["version"],
                row["state"],
                bool(row["guard"]["blind"]),
                *(rollout[name] for name in ("id", "state", "stage")),
            )
            if known.get(row["flag"]) != mark:
                known[row["flag"]] = mark
                session.out.show(row | {"at": seen["at"]}, _line)


def _line(row: Json) -> Rendered:
    parts = [row["at"], row["flag"], row["state"], row["serves"], str(_guard_text(row))]
    if row["rollout"] is not None:
        rollout = row["rollout"]
        parts.append(f"rollout {rollout['state'].replace('_', ' ')}, {stage_words(rollout)}")
    yield "  ".join(parts)
