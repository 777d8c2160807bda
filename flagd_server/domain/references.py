"""What a condition refers to by key: segments of its environment, and other flags."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flagd_server.domain.configuration import Configuration, JsonObject


@dataclass(frozen=True, slots=True)
class References:
    """Keys that a condition leans on, those of the segments it uses included."""

    segments: frozenset[str]
    flags: frozenset[str]


def references(configuration: Configuration, segments: Mapping[str, JsonObject]) -> References:
    """Return all that the rules lean on; a segment that is not in `segments` is only named."""
    return references_of((rule["condition"] for rule in configuration.rules), segments)


def references_of(
    conditions: Iterable[JsonObject], segments: Mapping[str, JsonObject]
) -> References:
    """Return all that the conditions lean on, directly or by way of segments."""
    found_segments: set[str] = set()
    found_flags: set[str] = set()
    pending = list(conditions)
    while pending:
        condition = pending.pop()
        pending.extend(condition.get("all", ()))
        pending.extend(condition.get("any", ()))
        if "not" in condition:
            pending.append(condition["not"])
        if "flag" in condition:
            found_flags.add(condition["flag"])
        segment = condition.get("segment")
        # Each segment is followed once, so that a cycle ends.
        if segment is not None and segment not in found_segments:
            found_segments.add(segment)
            if segment in segments:
                pending.append(segments[segment])
    return References(frozenset(found_segments), frozenset(found_flags))
