"""When a configuration counts as healthy, and what to go back to. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from flagd_server.domain.changes import rolled_back
from flagd_server.domain.configuration import Configuration
from flagd_server.domain.guard.blindness import LEAST_EXPOSURES
from flagd_server.domain.release import weight_of


def is_proven(
    weights: Mapping[str, Mapping[str, int]], served: Mapping[tuple[str, str], int]
) -> bool:
    """Return whether enough was served for a fault worth the name to have shown.

    Every split of two arms that anybody has met has to have shown enough of each; of one that
    nobody met, nothing can be said or be at fault.

    Args:
        weights: by the name of each split, the weights by variant.
        served: (split, variant) → exposures.
    """
    found = False
    for split, by_variant in weights.items():
        counts = [served.get((split, name), 0) for name, weight in by_variant.items() if weight]
        if len(counts) < 2 or not any(counts):
            continue
        if min(counts) < LEAST_EXPOSURES:
            return False
        found = True
    return found


def healthier(
    present: Configuration, old: Configuration, split: str, variant: str
) -> Configuration | None:
    """Return the old configuration as it is to be served again; None if that would take nothing
    of the variant away.

    The guard's policy stays what it is: it says how the flag is watched, not what is served.
    """
    back = rolled_back(present, old)
    if weight_of(back, split, variant) >= weight_of(present, split, variant):
        return None
    return replace(back, guard=present.guard)
