"""export, apply"""

from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from flagd_sdk.ctl.api import Json
from flagd_sdk.ctl.differences import change_words
from flagd_sdk.ctl.exits import CommandError, Exit, Problem
from flagd_sdk.ctl.gitops.applying import apply_plan
from flagd_sdk.ctl.gitops.checks import check
from flagd_sdk.ctl.gitops.exporting import manifests_of, to_yaml
from flagd_sdk.ctl.gitops.fetching import fetch_present
from flagd_sdk.ctl.gitops.manifests import read_manifests
from flagd_sdk.ctl.gitops.plan import Plan, Step, make_plan
from flagd_sdk.ctl.output import Rendered, clean
from flagd_sdk.ctl.session import Session, command, complete_flags, root
from flagd_sdk.ctl.yaml_files import Document, files_under, read_file

_SIGNS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "configure": ("~", "yellow"),
    "put_segment": ("~", "yellow"),
    "archive": ("-", "red"),
}


@command(root)
@click.argument("flags", nargs=-1, shell_complete=complete_flags)
@click.option(
    "--to", "folder", metavar="FOLDER", help="A file for each flag there, instead of one text."
)
def export(session: Session, flags: tuple[str, ...], folder: str | None) -> Exit:
    """Write flags and segments as YAML, as apply reads them; no kills, and nothing archived."""
    present = fetch_present(session.api)
    unknown = [key for key in flags if key not in present.flags]
    if unknown:
        raise CommandError(f"there is no flag {', '.join(unknown)}", status=404)
    made = manifests_of(present, flags)
    if folder is not None:
        _write(Path(folder), made)
        document = {"folder": folder, "files": list(made)}
        session.out.show(document, lambda _: [f"{len(made)} files written to {folder}"])
    elif session.out.as_json:
        session.out.line({"items": list(made.values())})
    elif not session.out.is_quiet:
        click.echo("---\n".join(to_yaml(each) for each in made.values()), nl=False)
    return Exit.OK


def _write(folder: Path, made: dict[str, Json]) -> None:
    """Write the files; of those that are there already, the ones that say something else."""
    try:
        for name, document in made.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = to_yaml(document)
            if not path.is_file() or path.read_bytes() != text.encode():
                path.write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"{error.filename or folder} can't be written: {error.strerror}"
        raise CommandError(message, Exit.USAGE) from error


@command(root)
@click.option(
    "-f", "--file", "paths", multiple=True, required=True, metavar="PATH", help="Repeatable."
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--check", "is_check", is_flag=True, help="The same; exit 1 where something differs.")
@click.option("--prune", is_flag=True, help="Archive the flags that no file has.")
def apply(
    session: Session, paths: tuple[str, ...], dry_run: bool, is_check: bool, prune: bool
) -> Exit:
    """Make flags and segments as files say. What a file does not say is left as it is.

    All files are checked before anything is written. Killed flags stay killed, and what a rollout
    decides is left to it until it ends. Applying again changes nothing.
    """
    problems: list[Problem] = []
    manifests = read_manifests(_documents(paths, problems), problems)
    if not problems and prune and not manifests.flags:
        # An empty checkout must not take every feature away.
        raise CommandError("no flag in these files: --prune would archive all", Exit.USAGE)
    try:
        present = fetch_present(session.api)
    except CommandError:
        _raise(problems)  # nearer to the person than a server that can't be asked
        raise
    _raise([*problems, *check(manifests, present)])
    plan = make_plan(manifests, present, prune=prune)
    is_dry = dry_run or is_check
    document = _document(plan, is_dry)
    if is_dry:
        session.out.show(document, lambda _: _render(plan, "would change"))
        return Exit.REFUSED if is_check and plan.steps else Exit.OK
    written: list[Step] = []
    try:
        apply_plan(session.api, plan, present, written.append)
    except CommandError as error:
        said = f"{len(written)} of {len(plan.steps)} changes are made; apply again to go on"
        raise CommandError(f"{error}; {said}", error.exit, error.problems, error.status) from error
    session.out.show(document, lambda _: _render(plan, "changed"))
    return Exit.OK


def _documents(paths: tuple[str, ...], problems: list[Problem]) -> list[Document]:
    # A file that is named twice is read once.
    files = dict.fromkeys(file for path in paths for file in files_under(path))
    return [document for file in files for document in read_file(file, problems)]


def _raise(problems: list[Problem]) -> None:
    if problems:
        count = f"{len(problems)} faults" if len(problems) > 1 else "a fault"
        message = f"the files can't be applied, nothing was changed: {count}"
        raise CommandError(message, Exit.USAGE, sorted(problems, key=_place))


def _place(problem: Problem) -> tuple[str, int]:
    """Return file and line of a problem, to sort by."""
    file, _, rest = problem.where.partition(":")
    line = rest.partition(":")[0]
    return file, int(line) if line.isdigit() else 0


def _document(plan: Plan, is_dry: bool) -> Json:
    steps = []
    for step in plan.steps:
        shown = asdict(step)
        shown["changes"] = [change._asdict() for change in step.changes]
        del shown["body"]
        steps.append(shown)
    return {
        "dry_run": is_dry,
        "steps": steps,
        "notes": list(plan.notes),
        "unchanged": plan.unchanged,
    }


def _render(plan: Plan, verb: str) -> Rendered:
    for step in plan.steps:
        sign, style = _SIGNS[step.action]
        kind = "segment " if step.action == "put_segment" else ""
        where = f" in {step.environment}" if step.environment else ""
        source = f"  ({step.place})" if step.place else "  (in no file)"
        yield Text.assemble((f"{sign} {kind}{step.key}{where}", style), (clean(source), "dim"))
        for change in step.changes:
            yield f"    {clean(change_words(change))}"
    for note in plan.notes:
        yield Text(f"! {clean(note)}", "yellow")
    touched = len({(step.action == "put_segment", step.key) for step in plan.steps})
    yield f"{touched} {verb}, {plan.unchanged} as they should be"
