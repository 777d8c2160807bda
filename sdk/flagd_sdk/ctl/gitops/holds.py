"""What files do not decide for now: shares that a rollout moves, or that were lowered for safety.

A pipeline applies files again and again. It must not undo what the guard has done, nor raise at
once what was released again from a small share. Pure.
"""

from typing import NamedTuple

from flagd_sdk.ctl.differences import same
from flagd_sdk.ctl.gitops.manifests import Json

GUARD = "guard"
"""The actor of what the guard does."""


class Hold(NamedTuple):
    """Why a configuration serves what it does, whatever its file says.

    Attributes:
        split: the one that is meant, "default" or a rule's id; None for all of them.
        with_enabled: whether `enabled` is held too.
    """

    why: str
    split: str | None
    with_enabled: bool


def hold_on(now: Json, rollout: Json | None) -> Hold | None:
    """Return what holds a configuration.

    Args:
        now: the configuration as the server gives it.
        rollout: the one that has not ended.
    """
    if rollout is not None:
        why = f"rollout {rollout['id']} ({rollout['state']}) decides until it ends"
        return Hold(why, rollout["split"], with_enabled=True)
    made = now.get("action"), now.get("actor")
    if made == ("rollback", GUARD):
        why = f"the guard rolled it back (version {now['version']}) until someone sets it or starts"
        return Hold(f"{why} a rollout", None, with_enabled=False)
    if made[0] == "restore":
        why = f"it was restored (version {now['version']}); raise it by a rollout or by set"
        return Hold(why, None, with_enabled=False)
    return None


def leave_held(wanted: Json, present: Json, hold: Hold) -> list[str]:
    """Put back in `wanted` what is held; return the paths of what differed."""
    left = []
    if hold.with_enabled and "enabled" in wanted:
        if not same(wanted["enabled"], present["enabled"]):
            left.append("enabled")
        wanted["enabled"] = present["enabled"]
    if "default_serve" in wanted and hold.split in (None, "default"):
        if not same(wanted["default_serve"], present["default_serve"]):
            left.append("default_serve")
        wanted["default_serve"] = present["default_serve"]
    served = {rule["id"]: rule["serve"] for rule in present["rules"]}
    for rule in wanted.get("rules", ()):
        name = rule["id"]
        if name in served and hold.split in (None, name):
            if not same(rule["serve"], served[name]):
                left.append(f"rules.{name}.serve")
            rule["serve"] = served[name]
    return left
