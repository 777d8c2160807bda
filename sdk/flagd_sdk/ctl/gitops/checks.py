"""Holds what files say, together with what is on the server, to the rules of flags. Pure.

Values and conditions are asked of the functions that applications evaluate with. The server has
the last word; this is so that a fault is named with its line, before anything is written.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flagd_sdk.core.conditions import Gathered, compile_condition, compile_segments
from flagd_sdk.core.cycles import describe_cycle, find_cycles
from flagd_sdk.core.types import shown
from flagd_sdk.core.values import READERS
from flagd_sdk.ctl.exits import Problem
from flagd_sdk.ctl.gitops.manifests import Json, Manifest, Manifests
from flagd_sdk.ctl.gitops.present import Present, initial_configuration
from flagd_sdk.ctl.wording import WEIGHTS
from flagd_sdk.errors import ParseError


def check(manifests: Manifests, present: Present) -> list[Problem]:
    """Return everything that keeps the files from being applied."""
    problems: list[Problem] = []
    for manifest in (*manifests.flags.values(), *manifests.segments.values()):
        problems += [
            manifest.problem(
                f"environments.{name}",
                f"there is no such environment; there are {', '.join(present.environments)}",
            )
            for name in manifest.environments
            if name not in present.environments
        ]
    variants = {key: flag["variants"] for key, flag in present.flags.items()}
    for manifest in manifests.flags.values():
        problems += _check_definition(manifest, present)
        variants[manifest.key] = manifest.value.get("variants", variants.get(manifest.key, {}))
    for environment in present.environments:
        problems += _Environment(environment, manifests, present, variants).check()
    return problems


def _check_definition(manifest: Manifest, present: Present) -> Iterator[Problem]:
    known = present.flags.get(manifest.key)
    given = manifest.value.get("type")
    if known is None:
        for name in ("type", "variants"):
            if name not in manifest.document.value:  # one that is no good is named already
                yield manifest.problem("flag", f"a new flag needs {name}")
    elif given not in (None, known["type"]):
        message = f"it is {known['type']} on the server, and its type never changes"
        yield manifest.problem("type", message)
        return
    read = READERS.get(given or (known or {}).get("type", ""))
    variants = manifest.value.get("variants")
    if variants is None or read is None:
        return
    if not variants:
        yield manifest.problem("variants", "expected one at least")
    for name, value in variants.items():
        try:
            read(value)
        except ValueError as error:
            yield manifest.problem(f"variants.{name}", str(error))


class _Environment:
    """One environment as it would be when the files are applied."""

    def __init__(
        self,
        name: str,
        manifests: Manifests,
        present: Present,
        variants: Mapping[str, Json],
    ) -> None:
        self._name = name
        self._manifests = manifests
        self._variants = variants
        self._present = present
        conditions = {key: each["condition"] for key, each in present.segments[name].items()} | {
            key: each.environments[name]["condition"]
            for key, each in manifests.segments.items()
            if "condition" in each.environments.get(name, ())
        }
        self._segments = compile_segments(conditions)

    def check(self) -> Iterator[Problem]:
        for manifest in self._manifests.segments.values():
            given = manifest.environments.get(self._name, {})
            if "condition" in given:
                path = f"environments.{self._name}.condition"
                yield from self._condition_faults(manifest, path, given["condition"])
        edges: dict[str, set[str]] = {
            key: self._asked_by(flag["configurations"][self._name]["rules"])
            for key, flag in self._present.flags.items()
            if self._name in flag["configurations"]
        }
        for key, manifest in self._manifests.flags.items():
            configuration = self._configuration(manifest)
            yield from self._check_flag(manifest, configuration)
            edges[key] = self._asked_by(configuration["rules"])
        for group in find_cycles(edges):
            for key in group:
                if key in self._manifests.flags:
                    way = describe_cycle(edges, group)
                    path = f"environments.{self._name}.rules"
                    message = f"flags that ask for each other: {way}"
                    yield self._manifests.flags[key].problem(path, message)

    def _configuration(self, manifest: Manifest) -> Json:
        known = self._present.flags.get(manifest.key)
        given = manifest.environments.get(self._name, {})
        if known is not None:
            return {**known["configurations"][self._name], **given}
        variants = self._variants[manifest.key] or {"": None}
        return {**initial_configuration(manifest.value.get("type", ""), variants), **given}

    def _check_flag(self, manifest: Manifest, configuration: Json) -> Iterator[Problem]:
        variants = self._variants[manifest.key]
        if not variants:
            return  # said already
        top = f"environments.{self._name}"
        if configuration["off_variant"] not in variants:
            yield manifest.problem(f"{top}.off_variant", _no_variant(configuration["off_variant"]))
        control = configuration["guard"].get("control")
        if control is not None and control not in variants:
            yield manifest.problem(f"{top}.guard.control", _no_variant(control))
        served: list[tuple[str, Any]] = [(f"{top}.default_serve", configuration["default_serve"])]
        seen: set[object] = set()
        for index, rule in enumerate(configuration["rules"]):
            path = f"{top}.rules[{index}]"
            if type(rule) is not dict:
                yield manifest.problem(path, "expected a rule")
                continue
            yield from self._check_rule(manifest, path, rule)
            if rule.get("id") in seen:
                yield manifest.problem(f"{path}.id", f"{shown(rule['id'])} stands here twice")
            seen.add(rule.get("id") if type(rule.get("id")) is str else None)
            served.append((f"{path}.serve", rule.get("serve")))
        for path, serve in served:
            for within, message in _serve_faults(serve, variants):
                yield manifest.problem(path + within, message)

    def _check_rule(self, manifest: Manifest, path: str, rule: Json) -> Iterator[Problem]:
        unknown = rule.keys() - {"id", "description", "condition", "serve"}
        for name in sorted(unknown):
            yield manifest.problem(f"{path}.{name}", "is no field of a rule")
        own = rule.get("id")
        if type(own) is not str or not own or own == "default":
            message = f"{shown(own)}; expected a name: telemetry and the guard know the rule by it"
            yield manifest.problem(f"{path}.id", message)
        yield from self._condition_faults(manifest, f"{path}.condition", rule.get("condition"))

    def _condition_faults(self, manifest: Manifest, path: str, condition: Any) -> Iterator[Problem]:
        try:
            compile_condition(condition, Gathered(self._segments.get), 1)
        except ParseError as error:
            within, _, message = str(error).partition(": ")
            yield manifest.problem(f"{path}.{within}" if within else path, message)
            return
        for flag, wanted in _prerequisites(condition):
            if flag not in self._variants:
                yield manifest.problem(path, f"there is no flag {shown(flag)}")
                continue
            for variant in wanted:
                if variant not in self._variants[flag]:
                    message = f"{shown(variant)} is none of the variants of flag {flag}"
                    yield manifest.problem(path, message)

    def _asked_by(self, rules: Any) -> set[str]:
        """Return the flags that rules ask for, by themselves or through segments."""
        gathered = Gathered(self._segments.get)
        for rule in rules:
            try:
                compile_condition(rule.get("condition"), gathered, 1)
            except (ParseError, AttributeError):
                continue  # named elsewhere, or none of the files'
        return gathered.prerequisites


def _prerequisites(condition: Any) -> Iterator[tuple[str, list[str]]]:
    if "flag" in condition:
        yield condition["flag"], condition.get("variants", [])
    children = [*condition.get("all", ()), *condition.get("any", ())]
    for child in [*children, *([condition["not"]] if "not" in condition else [])]:
        yield from _prerequisites(child)


_SPLIT_FIELDS: Final = {"weights", "bucket_by", "salt"}
_WORKED_OUT: Final = {"allocation", "rested"}  # by the server, and not written


def _serve_faults(serve: Any, variants: Json) -> Iterator[tuple[str, str]]:
    """Yield (path within the serve, message) of each fault."""
    if type(serve) is not dict or len(serve) != 1 or not serve.keys() <= {"variant", "split"}:
        yield "", f"{shown(serve)}; expected a mapping with 'variant' or 'split'"
        return
    if "variant" in serve:
        if type(serve["variant"]) is not str or serve["variant"] not in variants:
            yield ".variant", _no_variant(serve["variant"])
        return
    split = serve["split"]
    weights = split.get("weights") if type(split) is dict else None
    if type(weights) is not dict or not weights:
        yield ".split", "expected weights: variant → share in 100000"
        return
    for name in sorted(split.keys() - _SPLIT_FIELDS - _WORKED_OUT):
        yield f".split.{name}", f"is no field; expected {', '.join(sorted(_SPLIT_FIELDS))}"
    for name, weight in weights.items():
        if name not in variants:
            yield f".split.weights.{name}", _no_variant(name)
        if type(weight) is not int or not 0 <= weight <= WEIGHTS:
            yield f".split.weights.{name}", f"{shown(weight)}; expected 0 to {WEIGHTS}"
            return
    total = sum(weights.values())
    if total != WEIGHTS:
        yield ".split.weights", f"they sum to {total}; expected {WEIGHTS}"


def _no_variant(name: object) -> str:
    return f"{shown(name)} is none of the flag's variants"
