"""The guard policy of a flag: what may be set, and what holds where nothing is."""

from collections.abc import Collection
from typing import Any

from flagd_server.domain.configuration import JsonObject
from flagd_server.domain.faults import Fault
from flagd_server.domain.guard.records import DEFAULT_ALPHA
from flagd_server.stats.coin import DEFAULT_MARGIN

MODES = ("enforce", "observe", "off")
MAX_ALPHA = 0.1
"""Above, one healthy flag in ten would be killed; whoever wants that wants no test."""
MAX_MARGIN = 10.0


def complete_policy(document: JsonObject) -> dict[str, Any]:
    """Return the policy with the default for each field that is not given."""
    return {
        "mode": "enforce",
        "control": None,
        "alpha": DEFAULT_ALPHA,
        "margin": DEFAULT_MARGIN,
        **document,
    }


def check_policy(policy: JsonObject, variants: Collection[str]) -> list[Fault]:
    """Return what is wrong with a complete policy of a flag that has these variants."""
    faults = []
    if policy["mode"] not in MODES:
        faults.append(Fault("guard.mode", f"expected one of {', '.join(MODES)}"))
    if policy["control"] is not None and policy["control"] not in variants:
        faults.append(
            Fault("guard.control", f"{policy['control']!r} is none of the flag's variants")
        )
    if not _is_between(policy["alpha"], 0.0, MAX_ALPHA) or policy["alpha"] == 0:
        faults.append(Fault("guard.alpha", f"expected a number above 0 and at most {MAX_ALPHA:g}"))
    if not _is_between(policy["margin"], 1.0, MAX_MARGIN):
        faults.append(Fault("guard.margin", f"expected a number from 1 to {MAX_MARGIN:g}"))
    return faults


def _is_between(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
