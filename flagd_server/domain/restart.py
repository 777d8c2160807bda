"""What a killed flag serves once its kill is lifted: a small share, to the same users. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flagd_sdk.core.bucketing import BUCKETS
from flagd_server.domain.allocation import Intervals, held_by, united
from flagd_server.domain.changes import nearest, with_allocation
from flagd_server.domain.configuration import DEFAULT_SPLIT, Configuration, JsonObject
from flagd_server.domain.faults import Fault
from flagd_server.domain.stages import DEFAULT_STAGES, Stage


@dataclass(frozen=True, slots=True)
class FixedIn:
    """The version of a service in which the fault that led to a kill is fixed."""

    service: str
    version: str


@dataclass(frozen=True, slots=True)
class Restore:
    """What lifting a kill is asked with.

    Attributes:
        kill: the id of the kill that is meant.
        reason, fixed_in: why the flag may be on again; one of them at least.
        start_percent: what each split starts with; None stands for the smallest stage. Never more
            than it had.
        keep: go on with the shares there were.
        leave_out_exposed: serve those who had the feature when it was killed last of all.
    """

    kill: str
    reason: str = ""
    fixed_in: FixedIn | None = None
    start_percent: float | None = None
    keep: bool = False
    leave_out_exposed: bool = False

    @property
    def comment(self) -> str:
        fixed = self.fixed_in
        if fixed is None:
            return self.reason
        where = f"fixed in version {fixed.version} of {fixed.service}"
        return f"{self.reason} ({where})" if self.reason else where

    @property
    def weight(self) -> int:
        """The share to start with, as a weight of a split."""
        if self.keep:
            return BUCKETS
        percent = DEFAULT_STAGES[0] if self.start_percent is None else self.start_percent
        return Stage(percent).weight

    def faults(self) -> list[Fault]:
        found = []
        if not self.reason.strip() and self.fixed_in is None:
            message = "is required, or fixed_in: why may the flag be on again?"
            found.append(Fault("reason", message))
        if self.start_percent is not None:
            if self.keep:
                found.append(Fault("start_percent", "expected either start_percent or keep"))
            elif not 0 < self.start_percent <= 100 or self.weight == 0:
                message = f"{self.start_percent:g}; expected more than 0, in thousandths, to 100"
                found.append(Fault("start_percent", message))
        return found


def restarted(
    killed: Configuration, restore: Restore, flag: str, exposed_in: Sequence[Configuration]
) -> Configuration:
    """Return the configuration without its kill, each split as small as is asked for.

    Whoever is not in the small share keeps what everybody has while the kill stands: the off
    variant. Rules and a default that serve one variant to all stay as they are; but where a start
    is named, so does the default start.

    Args:
        flag: its key.
        exposed_in: the configurations in which users met the fault, where those are left out.
    """
    off = killed.off_variant
    default = killed.default_serve
    if restore.start_percent is not None and default.get("variant", off) != off:
        asked = {"split": {"weights": {default["variant"]: BUCKETS, off: 0}}}
        default = with_allocation(asked, None, flag, off)

    def start(name: str, serve: JsonObject) -> JsonObject:
        if "split" not in serve:
            return serve
        exposed = [_exposed(configuration, name, serve["split"]) for configuration in exposed_in]
        return {"split": _started(serve["split"], off, restore.weight, exposed)}

    return replace(
        killed,
        kill=None,
        default_serve=start(DEFAULT_SPLIT, default),
        rules=tuple({**rule, "serve": start(rule["id"], rule["serve"])} for rule in killed.rules),
    )


def _started(
    split: JsonObject, off: str, weight: int, exposed: Sequence[Intervals]
) -> dict[str, Any]:
    weights = _scaled(split["weights"], off, weight)
    started = {**split, "weights": weights}
    if any(exposed):
        started["rested"] = united(split.get("rested", ()), *exposed)
        # Nobody has the feature while the kill stands, so that nobody loses it by this.
        started["allocation"] = nearest(None, started, off)
    elif weights != split["weights"]:
        started["allocation"] = nearest(split["allocation"], started, off)
    return started


def _scaled(weights: Mapping[str, int], off: str, start: int) -> dict[str, int]:
    """Return weights in which all but the off variant have `start` together, if they had more."""
    had = sum(weight for name, weight in weights.items() if name != off)
    if had <= start:
        return dict(weights)
    scaled = {name: weight * start // had for name, weight in weights.items() if name != off}
    if scaled:
        largest = max(scaled, key=lambda name: scaled[name])
        scaled[largest] += start - sum(scaled.values())
    # In the order in which they were written, which deals the buckets.
    return {**dict.fromkeys(weights, 0), **scaled, off: BUCKETS - start}


def _exposed(configuration: Configuration, name: str, split: JsonObject) -> list[list[int]]:
    """Return the buckets of a split that had more than the off variant."""
    before = dict(configuration.splits()).get(name)
    if before is None or not configuration.enabled:
        return []
    if (before["salt"], before["bucket_by"]) != (split["salt"], split["bucket_by"]):
        return []
    held = held_by(before["allocation"])
    return united(*(parts for name, parts in held.items() if name != configuration.off_variant))
