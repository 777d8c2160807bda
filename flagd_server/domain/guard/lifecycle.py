"""When a guarded life starts and ends, and what in it counts as an announced change.

Weights and rules may change within a life, since every toss carries the weights of its own
configuration version; what changes the meaning of the evidence starts a new one.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from flagd_server.domain.configuration import Configuration
from flagd_server.domain.guard.records import Policy


class Mode(StrEnum):
    """What a decision leads to: a kill, a report only, or no watching at all."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class Effect(StrEnum):
    """What a new version of a configuration does to the life that is running."""

    NOTHING = "nothing"
    ANNOUNCE = "announce"
    RESTART = "restart"
    END = "end"


def mode_of(configuration: Configuration) -> Mode:
    return Mode(configuration.guard["mode"])


def acts_on_breach(configuration: Configuration) -> bool:
    """Return whether a decision turns the flag off or back, if nothing else holds that back."""
    return mode_of(configuration) is Mode.ENFORCE and configuration.guard["on_breach"] != "hold"


def rolls_back(configuration: Configuration) -> bool:
    """Return whether it goes back to its last healthy configuration first, where it has one."""
    return acts_on_breach(configuration) and configuration.guard["on_breach"] == "rollback"


def policy_of(configuration: Configuration, objectives: Mapping[str, float]) -> Policy:
    """Return the policy of a life that starts now.

    Args:
        objectives: service → availability objective, in the environment.
    """
    guard = configuration.guard
    return Policy(
        alpha=guard["alpha"],
        margin=guard["margin"],
        control=guard["control"],
        off_variant=configuration.off_variant,
        guards=tuple(guard["guards"]),
        slow=tuple(guard["slow"]),
        harm_budget=guard["harm_budget"],
        on_burn=guard["on_burn"],
        slos=objectives,
    )


def is_guardable(configuration: Configuration, objectives: Mapping[str, float]) -> bool:
    """Return whether a life may start: on, watched, not killed, and something to judge by.

    That is two arms to compare, or else a service's objective.
    """
    return (
        configuration.enabled
        and configuration.kill is None
        and mode_of(configuration) is not Mode.OFF
        and (
            has_two_arms(configuration)
            or (bool(objectives) and "availability" in configuration.guard["guards"])
        )
    )


def watch_of(configuration: Configuration, objectives: Mapping[str, float]) -> tuple[str, str]:
    """Return how a flag is watched, in a word, and why, in a sentence.

    The word is the mode, or what stands in its way: "killed", "disabled" or "no control".
    """
    mode = mode_of(configuration)
    if configuration.kill is not None:
        return "killed", "the flag is off until somebody restores it"
    if not configuration.enabled:
        return "disabled", "the flag is off for everybody"
    if mode is Mode.OFF:
        return mode.value, "the policy says that nobody watches"
    if has_two_arms(configuration):
        return mode.value, "failing units of its variants are compared"
    if is_guardable(configuration, objectives):
        return "no control", "no split has two variants of weight; only the objectives are watched"
    return "no control", "no split has two variants of weight, and no service has an objective"


def has_two_arms(configuration: Configuration) -> bool:
    return any(
        sum(weight > 0 for weight in weights.values()) >= 2
        for weights in configuration.split_weights().values()
    )


def effect_of(
    before: Configuration,
    before_variants: Mapping[str, Any],
    after: Configuration,
    after_variants: Mapping[str, Any],
) -> tuple[Effect, str]:
    """Return what one change of a configuration does to its life, and what to call it."""
    if after.kill is not None:
        return Effect.END, "killed"
    if mode_of(after) is Mode.OFF:
        return Effect.END, "guard off"
    if before.kill is not None:
        return Effect.RESTART, "restored"
    if before.guard != after.guard or before.off_variant != after.off_variant:
        return Effect.RESTART, "policy"
    if any(after_variants.get(name) != value for name, value in before_variants.items()):
        return Effect.RESTART, "variants"
    if (before.rules, before.default_serve, before.enabled) == (
        after.rules,
        after.default_serve,
        after.enabled,
    ):
        return Effect.NOTHING, ""
    same_shape = _shape(before) == _shape(after)
    return Effect.ANNOUNCE, "weights" if same_shape else "rules"


def _shape(configuration: Configuration) -> Any:
    """Everything about the rules but the numbers of their splits."""
    serves = [
        ("default", None, configuration.default_serve),
        *((rule["id"], rule["condition"], rule["serve"]) for rule in configuration.rules),
    ]
    return [
        (name, condition, "split" if "split" in serve else serve)
        for name, condition, serve in serves
    ] + [configuration.enabled]
