"""How one flag behaves in one environment, and what of it is delivered to applications.

Conditions, serves and guard policies stay plain JSON here: they are held to their rules by
validation.py before they get in, and compiled by the evaluator where they are used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from flagd_server.domain.times import format_time, parse_time

JsonObject: TypeAlias = Mapping[str, Any]

DEFAULT_SPLIT = "default"
"""What the split of `default_serve` is called, beside the rules' ids; no rule may be called so."""


_DELIVERED_POLICY = ("mode", "control", "alpha", "margin", "guards", "on_breach")


class KillSource(StrEnum):
    """Who may press the switch. `local` is what a process calls its own, which no server stores."""

    OPERATOR = "operator"
    GUARD = "guard"
    DEPLOYMENT = "deployment"
    ALERT = "alert"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Kill:
    """A flag held off, whatever its configuration says, until someone restores it by this id.

    Attributes:
        by: who did it: the name of a token, "people/" and a name, or "guard".
        evidence: id of the evidence report behind it, if there is one.
    """

    id: str
    at: datetime
    by: str
    source: KillSource
    reason: str
    evidence: str | None = None

    def to_document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "at": format_time(self.at),
            "by": self.by,
            "source": self.source.value,
            "reason": self.reason,
            "evidence": self.evidence,
        }

    @classmethod
    def from_document(cls, document: JsonObject) -> "Kill":
        return cls(
            id=document["id"],
            at=parse_time(document["at"]),
            by=document["by"],
            source=KillSource(document["source"]),
            reason=document["reason"],
            evidence=document["evidence"],
        )


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one version says. Immutable, its documents by convention.

    Attributes:
        rules: each {id, description?, condition, serve}, in the order they are tried.
        guard: the whole policy, defaults filled in.
    """

    enabled: bool
    off_variant: str
    rules: tuple[JsonObject, ...]
    default_serve: JsonObject
    guard: JsonObject = field(default_factory=dict)
    kill: Kill | None = None

    def to_document(self) -> dict[str, Any]:
        return {
            "enabled": self.enabled,
            "off_variant": self.off_variant,
            "rules": list(self.rules),
            "default_serve": self.default_serve,
            "guard": self.guard,
            "kill": None if self.kill is None else self.kill.to_document(),
        }

    @classmethod
    def from_document(cls, document: JsonObject) -> "Configuration":
        kill = document["kill"]
        return cls(
            enabled=document["enabled"],
            off_variant=document["off_variant"],
            rules=tuple(document["rules"]),
            default_serve=document["default_serve"],
            guard=document["guard"],
            kill=None if kill is None else Kill.from_document(kill),
        )

    def splits(self) -> Iterator[tuple[str, JsonObject]]:
        """Yield (name, split) of every percentage split: rules in order, then the default."""
        for rule in self.rules:
            if "split" in rule["serve"]:
                yield rule["id"], rule["serve"]["split"]
        if "split" in self.default_serve:
            yield DEFAULT_SPLIT, self.default_serve["split"]

    def split_weights(self) -> dict[str, dict[str, int]]:
        """Return the integer weights (sum 100,000) of every split, by its name."""
        return {name: dict(split["weights"]) for name, split in self.splits()}


def default_off_variant(flag_type: str, variants: Mapping[str, object]) -> str:
    """Return the variant a flag serves when off, where its author named none.

    That is the variant `false` of a boolean flag; otherwise the one declared last, since people
    write the new thing first and what was there before after it.
    """
    if flag_type == "boolean":
        for name, value in variants.items():
            if value is False:
                return name
    return next(reversed(list(variants)))


def flag_document(
    key: str,
    flag_type: str,
    variants: Mapping[str, object],
    version: int,
    configuration: Configuration,
) -> dict[str, Any]:
    """Return the flag as SDKs get it: what evaluation needs, and nothing else."""
    kill = configuration.kill
    return {
        "key": key,
        "type": flag_type,
        "version": version,
        "enabled": configuration.enabled,
        "variants": dict(variants),
        "off_variant": configuration.off_variant,
        "rules": [
            {"id": rule["id"], "condition": rule["condition"], "serve": rule["serve"]}
            for rule in configuration.rules
        ],
        "default_serve": configuration.default_serve,
        # What a process needs to judge its own failures.
        "guard": {name: configuration.guard[name] for name in _DELIVERED_POLICY},
        "kill": None
        if kill is None
        else {
            "at": format_time(kill.at),
            "source": kill.source.value,
            "reason": kill.reason,
            "id": kill.id,
        },
    }
