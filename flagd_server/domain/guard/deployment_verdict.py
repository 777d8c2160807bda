"""Flag or version, of a whole deployment: what the verdicts on its flags come to together.

Each flag's own comparison holds that flag fixed and no other. So while a flag hurts, a version that
looks worse through the eyes of another flag may owe that to the first; then only what is seen with
the first one off counts against the version: its own comparison, or all requests since its kill.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flagd_server.domain.guard.verdict_table import VersionEffect, Word, effect_of_version
from flagd_server.domain.guard.version_verdict import Verdict, figures
from flagd_server.stats.two_sample import CONFIDENCE, TwoSample


class CountedBy(StrEnum):
    """What is compared: units, each once an hour, or requests, where nobody names the units."""

    UNITS = "failing units"
    REQUESTS = "failing requests"


@dataclass(frozen=True, slots=True)
class FlagFinding:
    """What one flag's own comparison says of the version.

    Attributes:
        version: the one that the word is about; None where it speaks of none.
        is_tossed: there is a coin on this version, so that there will be an answer.
        was_brought: the version brought the flag.
        evidence: id of the report by which the guard killed it, where that kill stands.
        document: the whole verdict with its figures, as JSON; None where there is none.
    """

    flag: str
    word: Word
    version: str | None
    reason: str
    is_tossed: bool
    was_brought: bool
    evidence: str | None = None
    document: dict[str, Any] | None = None

    def hurts(self, version: str) -> bool:
        """Return whether the flag is at fault on the version."""
        if self.word is Word.FLAG_HERE:
            return self.version == version
        return self.word in (Word.FLAG, Word.BOTH) or self.evidence is not None

    def to_document(self) -> dict[str, Any]:
        return {
            "flag": self.flag,
            "verdict": self.word.value,
            "version": self.version,
            "reason": self.reason,
            "brought": self.was_brought,
            "evidence": self.evidence,
            "figures": self.document,
        }


@dataclass(frozen=True, slots=True)
class ServiceFinding:
    """The version compared with another of its service, over the requests that met one flag.

    Attributes:
        flag: it was held fixed, and met by more requests of both than any other.
        is_without_killed: only since the flags that were at fault are off.
    """

    other: str
    flag: str
    counted_by: CountedBy
    is_without_killed: bool
    comparison: TwoSample

    @property
    def effect(self) -> VersionEffect:
        return effect_of_version(self.comparison)

    def to_document(self) -> dict[str, Any]:
        return {
            "compared_with": self.other,
            "flag": self.flag,
            "counted_by": self.counted_by.value,
            "since_kill": self.is_without_killed,
            "figures": figures(self.comparison),
        }


@dataclass(frozen=True, slots=True)
class DeploymentVerdict:
    """Attributes:
    flags: those at fault.
    reasons: sentences for a person, the weightiest first.
    """

    word: Word
    flags: tuple[str, ...]
    reasons: tuple[str, ...]


def judge_deployment(
    version: str, flags: Sequence[FlagFinding], service: ServiceFinding | None
) -> DeploymentVerdict:
    """Return what is to blame in a deployment.

    Args:
        service: None where no other version ran beside this one.
    """
    hurting = [each for each in flags if each.hurts(version)]
    if hurting:
        return _at_fault(version, hurting, service)
    blaming = [each for each in flags if each.word is Word.VERSION and each.version == version]
    effect = VersionEffect.ABSENT if service is None else service.effect
    if blaming or effect is VersionEffect.WORSE:
        reasons = [f"{each.flag}: {each.reason}" for each in blaming]
        if service is not None and effect is VersionEffect.WORSE:
            reasons.insert(0, _spoken(version, service))
        return DeploymentVerdict(Word.VERSION, (), (*reasons, *_not_told_apart(flags)))
    pending = [
        each
        for each in flags
        if each.was_brought and each.is_tossed and each.word is Word.CANNOT_TELL
    ]
    cleared = [each for each in flags if each.word is Word.NEITHER]
    is_compared = effect in (VersionEffect.SAME, VersionEffect.BETTER)
    if not pending and (is_compared or (effect is VersionEffect.ABSENT and cleared)):
        reasons = [f"{each.flag}: {each.reason}" for each in cleared]
        if service is not None:
            reasons.insert(0, _spoken(version, service))
        return DeploymentVerdict(Word.NEITHER, (), tuple(reasons))
    reasons = [f"{each.flag}: {each.reason}" for each in pending]
    if service is None:
        reasons.append("no other version of the service ran beside it to compare it with")
    elif effect is VersionEffect.UNKNOWN:
        reasons.append(_too_few(version, service))
    if not flags:
        reasons.append("no flag of it is under guard")
    return DeploymentVerdict(Word.CANNOT_TELL, (), tuple(reasons))


def finding_of(
    flag: str,
    version: str,
    verdicts: Sequence[Verdict],
    *,
    was_brought: bool,
) -> FlagFinding | None:
    """Return what a flag's verdicts on the service say of the version, None where nothing.

    Where several pairs have it in them, the first that tells something of it speaks.
    """
    own = [each for each in verdicts if version in (each.newer, each.older)]
    if not own:
        return None
    telling = [each for each in own if each.word is not Word.CANNOT_TELL]
    verdict = next(iter(telling), own[0])
    return FlagFinding(
        flag=flag,
        word=verdict.word,
        version=verdict.version,
        reason=verdict.reason,
        is_tossed=version in verdict.coins,
        was_brought=was_brought,
        document=verdict.to_document(),
    )


def killed_finding(
    flag: str,
    version: str,
    service: str,
    report: dict[str, Any],
    *,
    was_brought: bool,
) -> FlagFinding | None:
    """Return what the report of a guard's kill says of the version.

    None where no failing unit of the service's version was in evidence. What was proved is that the
    flag hurts; at the moment of a quick kill the verdict may not say yet on which versions.
    """
    own = [
        each
        for each in report["versions"]
        if each["service"] == service and version in (each["newer"], each["older"])
    ]
    if not own:
        return None
    verdict = next((each for each in own if each["verdict"] != Word.CANNOT_TELL), own[0])
    word = Word(verdict["verdict"])
    if word not in (Word.FLAG, Word.BOTH, Word.FLAG_HERE):
        word = Word.FLAG
    is_elsewhere = word is Word.FLAG_HERE and verdict["version"] != version
    return FlagFinding(
        flag=flag,
        word=word,
        version=verdict["version"],
        reason=f"the guard killed it: {report['decision']['reason']}",
        is_tossed=True,
        was_brought=was_brought,
        evidence=None if is_elsewhere else report["id"],
        document=verdict,
    )


def _at_fault(
    version: str, hurting: Sequence[FlagFinding], service: ServiceFinding | None
) -> DeploymentVerdict:
    reasons = [f"{each.flag}: {each.reason}" for each in hurting]
    is_worse = any(each.word is Word.BOTH and each.version == version for each in hurting)
    if (
        service is not None
        and service.is_without_killed
        and all(each.evidence is not None for each in hurting)
        and service.effect is VersionEffect.WORSE
    ):
        is_worse = True
        reasons.append(f"and since then {_spoken(version, service)}")
    if is_worse:
        word = Word.BOTH
    elif all(each.word is Word.FLAG_HERE for each in hurting):
        word = Word.FLAG_HERE
    else:
        word = Word.FLAG
    return DeploymentVerdict(word, tuple(each.flag for each in hurting), tuple(reasons))


def _not_told_apart(flags: Sequence[FlagFinding]) -> list[str]:
    """Name what came with the version and can't be told from it: turning it off would."""
    names = [each.flag for each in flags if each.was_brought and not each.is_tossed]
    if not names:
        return []
    return [
        f"it brought {', '.join(names)}, served to everybody or nobody, which can't be told from"
        " the version: turning that off would tell"
    ]


def _spoken(version: str, service: ServiceFinding) -> str:
    comparison = service.comparison
    high = "" if comparison.high == float("inf") else f" to {comparison.high:.1f}"
    return (
        f"with {service.flag} held fixed {version} fails {comparison.ratio:.1f} times as often as"
        f" {service.other} (at {CONFIDENCE:.0%}, {comparison.low:.1f}{high}, by"
        f" {service.counted_by.value}: {comparison.treatment_units} and {comparison.control_units})"
    )


def _too_few(version: str, service: ServiceFinding) -> str:
    comparison = service.comparison
    failed = comparison.treatment_units + comparison.control_units
    return (
        f"{version} and {service.other} had {failed} {service.counted_by.value} side by side in"
        f" {comparison.treatment_exposures} and {comparison.control_exposures} requests, too few"
        " to tell"
    )
