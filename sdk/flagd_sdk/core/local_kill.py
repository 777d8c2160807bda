"""A flag that a process has taken off by itself: the record, and the flag as it is then served."""

from collections.abc import Mapping
from typing import Any, NamedTuple

LOCAL = "local"
MAX_LOCAL_KILLS = 100  # that a process keeps and reports


class Evidence(NamedTuple):
    """What decided.

    Attributes:
        kind: of error, None where all errors together decided.
        log_e_value, log_threshold: natural logarithms; the former has reached the latter.
        in_treatment, in_control: units that failed for the first time on either side.
        expected_share: the part of them that chance alone puts in the treatment.
    """

    flag: str
    config_version: int
    split: str
    treatment: str
    control: str
    kind: str | None
    log_e_value: float
    log_threshold: float
    in_treatment: int
    in_control: int
    expected_share: float

    @property
    def sentence(self) -> str:
        """Say it in words, for a log and a page."""
        total = self.in_treatment + self.in_control
        what = self.kind or "an error"
        return (
            f"{self.in_treatment} of {total} units with {what} had {self.treatment!r} "
            f"(by chance {self.expected_share:.0%} of them would); log E is "
            f"{self.log_e_value:.1f}, needed {self.log_threshold:.1f}"
        )


class LocalKill(NamedTuple):
    """A flag held off in this process, until its configuration changes or the server lifts it.

    Attributes:
        id: made up by the process that decided; others that share its disk know it by the same.
        at: RFC 3339, by the process's clock.
    """

    id: str
    at: str
    evidence: Evidence

    @property
    def flag(self) -> str:
        return self.evidence.flag

    @property
    def config_version(self) -> int:
        """The version that is off; any other is served."""
        return self.evidence.config_version

    @property
    def reason(self) -> str:
        return self.evidence.sentence

    def to_document(self) -> dict[str, Any]:
        """Return it as it is kept on disk and goes over the wire."""
        return {"id": self.id, "at": self.at, **self.evidence._asdict()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "LocalKill":
        """Read what `to_document` made.

        Raises:
            ValueError: it is something else.
        """
        fields = dict(document)
        types = {"id": str, "at": str, **Evidence.__annotations__}
        if fields.keys() != types.keys() or not all(
            isinstance(fields[name], expected) for name, expected in types.items()
        ):
            raise ValueError("it is no local kill")
        return cls(fields.pop("id"), fields.pop("at"), Evidence(**fields))

    def stands_against(self, flag: object) -> bool:
        """Return whether this holds off a flag of the wire: the very version that it was made on.

        A kill by the server needs none of ours.
        """
        return (
            isinstance(flag, dict)
            and flag.get("version") == self.config_version
            and flag.get("kill") is None
        )

    def held_off(self, flag: Mapping[str, Any]) -> dict[str, Any]:
        """Return a flag of the wire as it is served while this stands."""
        kill = {"id": self.id, "at": self.at, "source": LOCAL, "reason": self.reason}
        return {**flag, "kill": kill}


def parted(document: object) -> tuple[object, list[LocalKill]]:
    """Part a flag set of the disk from the local kills kept beside it.

    One that can't be read holds off nothing.
    """
    if not isinstance(document, dict):
        return document, []
    flags = dict(document)
    kept = flags.pop("local_kills", None)
    kills = []
    for kill in kept.values() if isinstance(kept, dict) else ():
        try:
            kills.append(LocalKill.from_document(kill))
        except (TypeError, ValueError):
            continue
    return flags, kills
