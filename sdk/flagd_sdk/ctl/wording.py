"""Configurations in a few words. Pure."""

from typing import Any

Json = dict[str, Any]

WEIGHTS = 100_000
"""What the weights of a split sum to."""

OPEN_ROLLOUT_STATES = frozenset(("scheduled", "running", "waiting", "paused"))


def percent(weight: float) -> str:
    """Return a weight as "5 %", or "0.001 %"."""
    return f"{weight * 100 / WEIGHTS:.3f}".rstrip("0").rstrip(".") + " %"


def serve_words(serve: Json) -> str:
    """Return "on", or "on 5 %, off 95 %", the larger shares last."""
    if "variant" in serve:
        return str(serve["variant"])
    split = serve["split"]
    shares = [(weight, name) for name, weight in split["weights"].items() if weight]
    words = ", ".join(f"{name} {percent(weight)}" for weight, name in sorted(shares))
    by = split.get("bucket_by", "targetingKey")
    return words if by == "targetingKey" else f"{words} by {by}"


def state_words(configuration: Json) -> str:
    """Return "killed", "on" or "off"."""
    if configuration["kill"] is not None:
        return "killed"
    return "on" if configuration["enabled"] else "off"


def served_words(configuration: Json) -> str:
    """Return what is served now."""
    if state_words(configuration) != "on":
        return str(configuration["off_variant"])
    rules = len(configuration["rules"])
    words = serve_words(configuration["default_serve"])
    return words if not rules else f"{words} (after {rules} rule{'s' if rules > 1 else ''})"


def condition_words(condition: Json) -> str:
    """Return a condition as one line."""
    for name, joint in (("all", " and "), ("any", " or ")):
        if name in condition:
            return "(" + joint.join(condition_words(each) for each in condition[name]) + ")"
    if "not" in condition:
        return f"not {condition_words(condition['not'])}"
    if "segment" in condition:
        return f"in segment {condition['segment']}"
    if "flag" in condition:
        return f"flag {condition['flag']} is {' or '.join(condition['variants'])}"
    values = ", ".join(map(str, condition["values"][:5]))
    more = f" and {len(condition['values']) - 5} more" if len(condition["values"]) > 5 else ""
    return f"{condition['attribute']} {condition['op']} {values}{more}".rstrip()


def kill_words(kill: Json) -> str:
    return f"killed at {time_words(kill['at'])} by {kill['by']}: {kill['reason']}"


def time_words(moment: str | None) -> str:
    """Return "2026-03-01 12:00:00Z" of a server's time; a dash for none."""
    return "–" if moment is None else moment[:19].replace("T", " ") + "Z"


STATE_STYLES = {
    "on": "green",
    "off": "dim",
    "killed": "bold red",
    "running": "green",
    "scheduled": "cyan",
    "waiting": "yellow",
    "paused": "yellow",
    "completed": "bold green",
    "aborted": "yellow",
    "rolled_back": "bold red",
    "healthy": "bold green",
    "unhealthy": "bold red",
    "inconclusive": "yellow",
}
