"""What files say, against what is on the server → the steps that make them agree. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from flagd_sdk.core.instants import instant_key
from flagd_sdk.ctl.differences import (
    Change,
    changes_between,
    plain_configuration,
    plain_rule,
    plain_serve,
)
from flagd_sdk.ctl.gitops.holds import hold_on, leave_held
from flagd_sdk.ctl.gitops.manifests import Json, Manifest, Manifests
from flagd_sdk.ctl.gitops.present import Present, initial_configuration


@dataclass(frozen=True, slots=True)
class Step:
    """One write.

    Attributes:
        action: create, update, configure, put_segment or archive.
        key: of the flag or segment.
        environment: "" where it is about all of them.
        body: what to send.
        changes: what a person sees of it.
        place: file and line behind it; "" where the cause is that no file has it.
    """

    action: str
    key: str
    environment: str
    body: Json
    changes: tuple[Change, ...]
    place: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which each finds what it needs, and what to tell people beside them.

    Attributes:
        unchanged: flags and segments that are as their files say.
    """

    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    unchanged: int


def make_plan(manifests: Manifests, present: Present, *, prune: bool = False) -> Plan:
    """Return what there is to do. Files have to be sound (`checks.check`).

    Args:
        prune: archive the flags of the server that no file has.
    """
    before: list[Step] = []
    configured: list[Step] = []
    after: list[Step] = []
    notes: list[str] = []
    segment_steps = list(_segment_steps(manifests, present))
    for key, manifest in manifests.flags.items():
        known = present.flags.get(key)
        first, last = _definition_steps(manifest, known)
        before += first
        after += last
        if known is None:
            off = first[0].body.get("off_variant")
            start = initial_configuration(manifest.value["type"], manifest.value["variants"], off)
        if known is not None and known["archived"] and manifest.value.get("archived"):
            continue  # nobody is served by it, and its configurations can't be changed
        for environment, given in manifest.environments.items():
            now = start if known is None else known["configurations"][environment]
            rollout = present.rollouts.get((key, environment))
            step = _configure_step(manifest, environment, given, now, rollout, notes)
            if step is not None:
                configured.append(step)
    if prune:
        for key, flag in present.flags.items():
            if key not in manifests.flags and not flag["archived"]:
                change = Change("archived", False, True)
                after.append(Step("archive", key, "", {"archived": True}, (change,), ""))
    steps = (*before, *segment_steps, *configured, *after)
    touched = {(step.action == "put_segment", step.key) for step in steps}
    total = {(False, key) for key in manifests.flags} | {(True, key) for key in manifests.segments}
    return Plan(steps, tuple(notes), len(total - touched))


def _definition_steps(manifest: Manifest, known: Json | None) -> tuple[list[Step], list[Step]]:
    """Return what comes before the configurations, and what comes after.

    A variant is added before something can serve it, and removed when nothing does any more.
    """
    place = manifest.document.line("flag")
    given = manifest.value
    if known is None:
        offs = [
            each["off_variant"] for each in manifest.environments.values() if "off_variant" in each
        ]
        body = {"key": manifest.key, **{k: v for k, v in given.items() if k != "archived"}}
        body |= {"off_variant": offs[0]} if offs else {}
        changes = tuple(Change(name, None, body[name]) for name in body if name != "key")
        archive = {"archived": True} if given.get("archived") else {}
        created = [Step("create", manifest.key, "", body, changes, place)]
        return created, _updates(manifest, archive, {"archived": False}, place)
    # Being in a file is being wanted: what was archived comes back with its file.
    fields: Json = {"archived": False} | {k: v for k, v in given.items() if k != "type"}
    if "expires_at" in fields and _same_time(fields["expires_at"], known["expires_at"]):
        del fields["expires_at"]
    before: Json = dict(fields)
    after: Json = {}
    if fields.get("archived"):
        after["archived"] = before.pop("archived")
    variants: Json = fields["variants"] if "variants" in fields else known["variants"]
    gone = known["variants"].keys() - variants.keys()
    if gone:
        after["variants"] = variants
        before["variants"] = {name: known["variants"][name] for name in sorted(gone)} | variants
    first = _updates(manifest, before, known, place)
    return first, _updates(manifest, after, {**known, **before}, place)


def _updates(manifest: Manifest, fields: Json, known: Json, place: str) -> list[Step]:
    changes = changes_between(known, fields)
    body = {name: fields[name] for name in {change.path for change in changes}}
    return [Step("update", manifest.key, "", body, tuple(changes), place)] if changes else []


def _same_time(left: Any, right: Any) -> bool:
    """Tell whether two are the same moment, however written, or both none."""
    return left is right or (instant_key(left) or left) == (instant_key(right) or right)


def _segment_steps(manifests: Manifests, present: Present) -> Iterator[Step]:
    order: TopologicalSorter[str] = TopologicalSorter()
    for key, manifest in manifests.segments.items():
        used = {name for each in manifest.environments.values() for name in _segments_in(each)}
        order.add(key, *(name for name in used if name in manifests.segments))
    for key in order.static_order():
        manifest = manifests.segments[key]
        for environment, given in manifest.environments.items():
            known = present.segments[environment].get(key, {})
            body = {"description": known.get("description", ""), **given}
            changes = changes_between(known, body)
            if changes:
                place = manifest.document.line(f"environments.{environment}")
                yield Step("put_segment", key, environment, body, tuple(changes), place)


def _segments_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if type(value.get("segment")) is str:
            yield value["segment"]
        for each in value.values():
            yield from _segments_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from _segments_in(each)


def _configure_step(
    manifest: Manifest,
    environment: str,
    given: Json,
    now: Json,
    rollout: Json | None,
    notes: list[str],
) -> Step | None:
    key = manifest.key
    present = plain_configuration(now, key)
    wanted = _wanted(given, now, present, key)
    where = f"{key} in {environment}"
    hold = hold_on(now, rollout)
    left = [] if hold is None else leave_held(wanted, present, hold)
    if hold is not None and left:
        notes.append(f"{where}: {hold.why}; {' and '.join(left)} left as it is")
    changes = changes_between(present, wanted)
    if now["kill"] is not None and (changes or wanted.get("enabled")):
        notes.append(f"{where} is killed ({now['kill']['id']}) and stays off")
    if not changes:
        return None
    if rollout is not None and rollout["state"] in ("running", "waiting"):
        notes.append(f"{where}: this change pauses rollout {rollout['id']}")
    names = {change.path.partition(".")[0].removesuffix(" (order)") for change in changes}
    body = {name: wanted[name] for name in wanted if name in names}
    place = manifest.document.line(f"environments.{environment}")
    return Step("configure", key, environment, body, tuple(changes), place)


def _wanted(given: Json, now: Json, present: Json, key: str) -> Json:
    """Return the given fields, what they leave out filled in from what is there."""
    wanted = dict(given)
    if "guard" in given:
        wanted["guard"] = {**present["guard"], **given["guard"]}
    if "default_serve" in given:
        wanted["default_serve"] = plain_serve(given["default_serve"], key, now["default_serve"])
    if "rules" in given:
        rules = {rule["id"]: rule for rule in now["rules"]}
        wanted["rules"] = [plain_rule(rule, key, rules.get(rule["id"])) for rule in given["rules"]]
    return wanted
