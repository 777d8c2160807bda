"""The guard policy of a flag: what may be set, and what holds where nothing is."""

from collections.abc import Collection
from typing import Any

from flagd_server.domain.configuration import JsonObject
from flagd_server.domain.faults import Fault
from flagd_server.domain.guard.records import GUARDS, ON_BURN, QUANTILES, Policy

MODES = ("enforce", "observe", "off")
ON_BREACH = ("kill", "hold", "rollback")
MAX_HARM_BUDGET = 1_000_000_000
MAX_ALPHA = 0.1
"""Above, one healthy flag in ten would be killed; whoever wants that wants no test."""
MAX_MARGIN = 10.0


def complete_policy(document: JsonObject) -> dict[str, Any]:
    """Return the policy with the default for each field that is not given."""
    default = Policy()
    return {
        "mode": "enforce",
        "control": default.control,
        "alpha": default.alpha,
        "margin": default.margin,
        "guards": list(default.guards),
        "slow": list(default.slow),
        "on_breach": "kill",
        "on_burn": default.on_burn,
        "harm_budget": default.harm_budget,
        **document,
    }


def check_policy(policy: JsonObject, variants: Collection[str]) -> list[Fault]:
    """Return what is wrong with a complete policy of a flag that has these variants."""
    faults = []
    if policy["control"] is not None and policy["control"] not in variants:
        faults.append(
            Fault("guard.control", f"{policy['control']!r} is none of the flag's variants")
        )
    if not _is_between(policy["alpha"], 0.0, MAX_ALPHA) or policy["alpha"] == 0:
        faults.append(Fault("guard.alpha", f"expected a number above 0 and at most {MAX_ALPHA:g}"))
    if not _is_between(policy["margin"], 1.0, MAX_MARGIN):
        faults.append(Fault("guard.margin", f"expected a number from 1 to {MAX_MARGIN:g}"))
    for name, known in (("guards", GUARDS), ("slow", QUANTILES)):
        if not _are_some_of(policy[name], known):
            faults.append(Fault(f"guard.{name}", f"expected some of {', '.join(known)}, each once"))
    for name, known in (("mode", MODES), ("on_breach", ON_BREACH), ("on_burn", ON_BURN)):
        if policy[name] not in known:
            faults.append(Fault(f"guard.{name}", f"expected one of {', '.join(known)}"))
    budget = policy["harm_budget"]
    if budget is not None and not (type(budget) is int and 1 <= budget <= MAX_HARM_BUDGET):
        faults.append(
            Fault("guard.harm_budget", f"expected a whole number from 1 to {MAX_HARM_BUDGET:,}")
        )
    return faults


def _are_some_of(value: object, known: Collection[str]) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(name in known for name in value)
        and len(set(value)) == len(value)
    )


def _is_between(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
