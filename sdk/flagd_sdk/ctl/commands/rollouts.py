"""rollout start, status, list, pause, resume, advance, abort, approve, templates"""

from typing import Any

import click

from flagd_sdk.ctl.api import Json, at
from flagd_sdk.ctl.commands.rollout_watch import watch_rollout
from flagd_sdk.ctl.durations import format_duration
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Listing, Rendered, plain_table, styled
from flagd_sdk.ctl.rollout_views import (
    FAILED_STATES,
    render_rollout,
    stage_words,
)
from flagd_sdk.ctl.session import (
    DURATION,
    Session,
    command,
    configuration_path,
    environment_option,
    flag_argument,
    root,
)
from flagd_sdk.ctl.stages import stage_of, stage_option
from flagd_sdk.ctl.wording import OPEN_ROLLOUT_STATES, STATE_STYLES, time_words
from flagd_sdk.ctl.yaml_files import read_one

rollout_option = click.option("--rollout", "rollout_id", help="Its id; the newest if left out.")
timeout_option = click.option(
    "--timeout", "timeout_s", type=DURATION, help="With --watch, such as 2h; exit 5 after it."
)
watch_option = click.option("--watch", is_flag=True, help="Until it ends; exit 1 if it fails.")


@root.group()
def rollout() -> None:
    """Release a variant in stages."""


@command(rollout)
@flag_argument
@environment_option
@click.option("--template", help="Stages of a template; see rollout templates.")
@stage_option
@click.option("--stages", "stages_file", metavar="FILE", help="YAML or JSON: the list of stages.")
@click.option("--gate", "gates", multiple=True, help="For every --stage. Repeatable.")
@click.option("--from", "from_variant", help="The variant that loses; off if left out.")
@click.option("--to", "to_variant", help="The variant that gains.")
@click.option("--split", help="default, or the id of a rule.")
@click.option("--at", "starts_at", metavar="TIME", help="RFC 3339, with an offset.")
@watch_option
@timeout_option
def start(
    session: Session,
    flag: str,
    environment: str,
    stage_texts: tuple[str, ...],
    stages_file: str | None,
    gates: tuple[str, ...],
    watch: bool,
    timeout_s: float | None,
    **given: Any,
) -> Exit:
    """Start a rollout; it goes on by itself."""
    body = {name: value for name, value in given.items() if value is not None}
    if sum(map(bool, (stage_texts, stages_file, body.get("template")))) != 1:
        message = "expected one of --template, --stage and --stages"
        raise CommandError(message, Exit.USAGE)
    if gates and not stage_texts:
        raise CommandError("--gate goes with --stage", Exit.USAGE)
    if stage_texts:
        body["stages"] = [stage_of(text) | {"gates": list(gates)} for text in stage_texts]
    elif stages_file is not None:
        body["stages"] = read_one(stages_file).value
    started = session.api.post(configuration_path(flag, environment, "rollouts"), body)
    if watch:
        return watch_rollout(session, flag, environment, started["id"], timeout_s)
    session.out.show(started, render_rollout)
    return Exit.OK


@command(rollout)
@flag_argument
@environment_option
@rollout_option
@watch_option
@timeout_option
def status(
    session: Session,
    flag: str,
    environment: str,
    rollout_id: str | None,
    watch: bool,
    timeout_s: float | None,
) -> Exit:
    """Show how far a rollout is, and what it waits for. Exit 1 if it failed."""
    found = _find(session, flag, environment, rollout_id, is_open=False)
    if watch:
        return watch_rollout(session, flag, environment, found["id"], timeout_s)
    session.out.show(found, render_rollout)
    return Exit.REFUSED if found["state"] in FAILED_STATES else Exit.OK


@command(rollout, "list")
@flag_argument
@environment_option
def list_rollouts(session: Session, flag: str, environment: str) -> Exit:
    """List a flag's rollouts, newest first."""
    found = session.api.get(configuration_path(flag, environment, "rollouts"))
    session.out.show(found, _render_list)
    return Exit.OK


def _render_list(document: Json) -> Rendered:
    table = Listing("ROLLOUT", "STATE", "TO", "STAGE", "STARTED", "BY", nothing="no rollouts")
    for each in document["items"]:
        state = styled(each["state"].replace("_", " "), STATE_STYLES.get(each["state"], ""))
        where = stage_words(each)
        started = time_words(each["created_at"])
        table.add_row(each["id"], state, each["to_variant"], where, started, each["created_by"])
    yield table


@command(rollout)
def templates(session: Session) -> Exit:
    """List the templates of stages."""
    session.out.show(session.api.get(at("rollout-templates")), _render_templates)
    return Exit.OK


def _render_templates(document: Json) -> Rendered:
    table = plain_table("TEMPLATE", "STAGES")
    for template in document["items"]:
        stages = [
            f"{stage['percent']:g} % for {format_duration(stage['bake_time_s'])}"
            f" and {stage['min_exposures']:,} exposures"
            for stage in template["stages"]
        ]
        table.add_row(template["name"], "\n".join(stages))
    yield table


def _declare_steering(name: str, help_: str) -> None:
    @command(rollout, name)
    @flag_argument
    @environment_option
    @rollout_option
    @click.option("--reason", default="", help="Stands among its moves.")
    def steer(
        session: Session, flag: str, environment: str, rollout_id: str | None, reason: str
    ) -> Exit:
        found = _find(session, flag, environment, rollout_id, is_open=True)
        path = configuration_path(flag, environment, "rollouts", found["id"], name)
        session.out.show(session.api.post(path, {"reason": reason}), render_rollout)
        return Exit.OK

    rollout.commands[name].help = help_


for _name, _help in (
    ("pause", "Stop where it is; what is served stays."),
    ("resume", "Go on after a pause; the stage begins anew."),
    ("advance", "Begin the next stage now."),
    ("abort", "End it; what is served stays. To take a feature away, see kill."),
    ("approve", "Approve the end of the present stage."),
):
    _declare_steering(_name, _help)


def _find(
    session: Session, flag: str, environment: str, rollout_id: str | None, *, is_open: bool
) -> Json:
    """Return the rollout of that id, or the newest; where it is to be open, the open one."""
    if rollout_id is not None:
        return session.api.get(configuration_path(flag, environment, "rollouts", rollout_id))
    items = session.api.get(configuration_path(flag, environment, "rollouts"))["items"]
    for each in items:
        if not is_open or each["state"] in OPEN_ROLLOUT_STATES:
            found: Json = each
            return found
    what = "rollout that has not ended" if is_open else "rollout"
    raise CommandError(f"{flag} in {environment} has no {what}", Exit.CONFLICT)
