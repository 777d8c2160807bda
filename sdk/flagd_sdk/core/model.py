"""What a flag set is made of once it is compiled: resolutions, flags and segments.

All of it is immutable by convention and shared between threads without a lock. The classes are
plain and slotted, not frozen dataclasses: thousands are made when a flag set loads.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from flagd_sdk.core.types import ContextMapping, JsonValue, Reason
from flagd_sdk.errors import ErrorCode


class Resolution:
    """The outcome of an evaluation, made once when the flag is compiled and then only handed out.

    Attributes:
        flag: key of the flag.
        value: of the variant; None where `reason` is ERROR. Shared by all callers: whoever hands
            it on copies an object or a list first.
        variant: name, or None where `reason` is ERROR.
        split: id of the rule whose split decided, or "default"; None where no split decided.
        bucket_by: the attribute that gave the unit; None exactly where `split` is None.
        version: of the flag's configuration; 0 where it is not known.
        type: of the flag: boolean, string, integer, float or object; "" where it is not known.
        error_code, error_message: why `reason` is ERROR. Beside a value, TARGETING_KEY_MISSING:
            a split had nothing to place the context by, and the off variant is served.
        kill: (source, reason) where the flag is killed, else None.
    """

    __slots__ = (
        "bucket_by",
        "error_code",
        "error_message",
        "flag",
        "kill",
        "reason",
        "split",
        "type",
        "value",
        "variant",
        "version",
    )

    def __init__(
        self,
        flag: str,
        value: JsonValue,
        variant: str | None,
        reason: Reason,
        split: str | None,
        bucket_by: str | None,
        version: int,
        type: str,  # noqa: A002 - the flag's own word, as on the wire
        error_code: ErrorCode | None = None,
        error_message: str | None = None,
        kill: tuple[str, str] | None = None,
    ) -> None:
        self.flag = flag
        self.value = value
        self.variant = variant
        self.reason = reason
        self.split = split
        self.bucket_by = bucket_by
        self.version = version
        self.type = type
        self.error_code = error_code
        self.error_message = error_message
        self.kill = kill

    def __repr__(self) -> str:
        return f"<Resolution {self.flag} {self.variant} {self.reason}>"


# Takes the context; the other flags, for prerequisites, so that a flag stays compiled while its
# neighbours change; and what `bucketing.targeting_unit` makes of the context, which is the same for
# all flags.
Resolver: TypeAlias = Callable[[ContextMapping, "Peers", str | None], Resolution]
Condition: TypeAlias = Callable[[ContextMapping, "Peers"], bool]


class Peers(Protocol):
    """The flags of a flag set, for those among them that ask for others."""

    def get(self, key: str, /) -> Resolver | None: ...


def always(resolution: Resolution) -> Resolver:
    """Return the resolver that serves everyone the same."""
    return lambda _context, _peers, _unit: resolution


class Remembered:
    """Peers bound to one context, each evaluated when first asked for and then remembered."""

    __slots__ = ("_context", "_peers", "_served", "_unit")

    def __init__(self, context: ContextMapping, peers: Peers, unit: str | None) -> None:
        self._context = context
        self._peers = peers
        self._unit = unit
        self._served: dict[str, Resolver] = {}

    def get(self, key: str, /) -> Resolver | None:
        served = self._served.get(key)
        if served is None:
            peer = self._peers.get(key)
            if peer is not None:
                served = always(peer(self._context, self, self._unit))
                self._served[key] = served
        return served


class Flag:
    """One flag of a flag set, compiled.

    Attributes:
        killed: a kill stands; the flag serves its off variant until someone restores it.
        variants: name → value.
        prerequisites: keys of the flags that its live rules ask for, through segments too.
        resolve: serves a context; may raise where the context's own code raises.
        fault: why the flag can't be evaluated, else None.
        document: what it was compiled from, for those who need what evaluation does not.
    """

    __slots__ = (
        "document",
        "enabled",
        "fault",
        "key",
        "killed",
        "prerequisites",
        "resolve",
        "type",
        "variants",
        "version",
    )

    def __init__(
        self,
        key: str,
        type: str,  # noqa: A002 - the flag's own word, as on the wire
        version: int,
        enabled: bool,
        killed: bool,
        variants: Mapping[str, JsonValue],
        prerequisites: frozenset[str],
        resolve: Resolver,
        fault: str | None = None,
        document: object = None,
    ) -> None:
        self.key = key
        self.type = type
        self.version = version
        self.enabled = enabled
        self.killed = killed
        self.variants = variants
        self.prerequisites = prerequisites
        self.resolve = resolve
        self.fault = fault
        self.document = document

    def __repr__(self) -> str:
        return f"<Flag {self.key} version {self.version}>"


class Segment:
    """A condition that flags share, compiled.

    Attributes:
        height: levels of nested conditions in it, other segments included.
        size: conditions in it, other segments included.
        fault: why it can't be used; `holds` is then None.
    """

    __slots__ = ("fault", "height", "holds", "prerequisites", "size")

    def __init__(
        self,
        holds: Condition | None,
        prerequisites: frozenset[str],
        height: int,
        size: int,
        fault: str | None = None,
    ) -> None:
        self.holds = holds
        self.prerequisites = prerequisites
        self.height = height
        self.size = size
        self.fault = fault
