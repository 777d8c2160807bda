"""The verdicts on a service's versions: which pairs, what is found, and why, in a sentence."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isfinite
from typing import Any

from flagd_sdk.core.guard.coin import DEFAULT_MARGIN
from flagd_server.domain.guard.verdict_table import (
    Findings,
    FlagEffect,
    VersionCoin,
    VersionEffect,
    Word,
    effect_of_version,
    find_row,
)
from flagd_server.domain.guard.versions import ServiceBook, VersionBook, VersionCounts
from flagd_server.stats.two_sample import CONFIDENCE, TwoSample, compare

ServiceVersion = tuple[str, str]
"""(service, version)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to blame in one service, as far as two of its versions tell.

    Attributes:
        version: the version that fails more often, or on which alone the flag hurts; None where
            the verdict speaks of no version.
        reason: one sentence for a person.
        newer, older: the two; `older` is None where there is only one.
        versions: counts of the two; `coins` their restricted coin tests, where one is tossed.
        flag_fixed, flag_off: newer compared with older, among all and among those served the
            control, each variant by itself; None where there is only one.
        pooled_exposures: of versions of the service that were too many to tell apart.
    """

    service: str
    word: Word
    version: str | None
    reason: str
    newer: str
    older: str | None
    versions: Mapping[str, VersionCounts]
    coins: Mapping[str, VersionCoin]
    flag_fixed: TwoSample | None
    flag_off: TwoSample | None
    pooled_exposures: int

    def to_document(self) -> dict[str, Any]:
        versions = [
            {
                "version": name,
                **asdict(counts),
                "coin": asdict(self.coins[name]) if name in self.coins else None,
            }
            for name, counts in self.versions.items()
        ]
        return {
            "service": self.service,
            "verdict": str(self.word),
            "version": self.version,
            "reason": self.reason,
            "newer": self.newer,
            "older": self.older,
            "versions": versions,
            "flag_fixed": figures(self.flag_fixed),
            "flag_off": figures(self.flag_off),
            "pooled_exposures": self.pooled_exposures,
        }


def judge_versions(
    book: VersionBook,
    coins: Mapping[ServiceVersion, VersionCoin],
    controls: Collection[str],
    margin: float = DEFAULT_MARGIN,
) -> list[Verdict]:
    """Judge each service: its newest version with the one before, then what other pairs tell.

    Args:
        coins: of the versions on which a coin is tossed, that is, which served both arms.
        controls: the variants that are served where the flag is off.
        margin: the ratio up to which failing more often is no harm, as the policy has it.
    """
    found = []
    for service, counted in book.services.items():
        own = {version: coin for (name, version), coin in coins.items() if name == service}
        names = list(counted.versions)
        newest, before = names[-1], names[-2] if len(names) > 1 else None
        found.append(_Pair.of(service, counted, newest, before, own, controls, margin).judge())
        for older, newer in combinations(names, 2):
            if (newer, older) != (newest, before) and counted.compared(newer, older):
                other = _Pair.of(service, counted, newer, older, own, controls, margin).judge()
                if other.word is not Word.CANNOT_TELL:
                    found.append(other)
    return found


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two versions with all that is known of them; the comparisons are newer to older."""

    service: str
    counted: ServiceBook
    newer: str
    older: str | None
    coins: Mapping[str, VersionCoin]
    flag_fixed: TwoSample | None
    flag_off: TwoSample | None

    @classmethod
    def of(
        cls,
        service: str,
        counted: ServiceBook,
        newer: str,
        older: str | None,
        coins: Mapping[str, VersionCoin],
        controls: Collection[str],
        margin: float,
    ) -> "_Pair":
        fixed = off = None
        if older is not None:
            fixed = compare(counted.compared(newer, older), margin)
            off = compare(counted.compared(newer, older, controls), margin)
        return cls(service, counted, newer, older, coins, fixed, off)

    def judge(self) -> Verdict:
        names = [name for name in (self.older, self.newer) if name is not None]
        findings = self._findings()
        here, there = self.newer, self.older
        if self._is_about_older(findings):
            assert self.older is not None, "what is said of the older is said of a version"
            here, there = self.older, self.newer
            findings = Findings(
                findings.flag_there,
                findings.flag_here,
                findings.flag_off.reversed(),
                findings.flag_fixed.reversed(),
            )
        row = find_row(findings)
        version = here if row.word in (Word.VERSION, Word.FLAG_HERE) else None
        if row.word is Word.BOTH:
            version = here if findings.flag_off is VersionEffect.WORSE else there
        return Verdict(
            service=self.service,
            word=row.word,
            version=version,
            reason=row.reason.format_map(self._phrases(findings, here, there)),
            newer=self.newer,
            older=self.older,
            versions={name: self.counted.versions[name] for name in names},
            coins={name: self.coins[name] for name in names if name in self.coins},
            flag_fixed=self.flag_fixed,
            flag_off=self.flag_off,
            pooled_exposures=self.counted.pooled_exposures,
        )

    def _findings(self) -> Findings:
        """Return what is known with the newer version in question."""
        return Findings(
            self._flag_effect(self.newer),
            self._flag_effect(self.older),
            *(
                VersionEffect.ABSENT if comparison is None else effect_of_version(comparison)
                for comparison in (self.flag_off, self.flag_fixed)
            ),
        )

    def _flag_effect(self, version: str | None) -> FlagEffect:
        coin = None if version is None else self.coins.get(version)
        return FlagEffect.ABSENT if coin is None else coin.effect

    @staticmethod
    def _is_about_older(newer: Findings) -> bool:
        hurts_newer = newer.flag_here is FlagEffect.HARMS
        hurts_older = newer.flag_there is FlagEffect.HARMS
        if hurts_newer or hurts_older:
            return not hurts_newer
        differing = (VersionEffect.WORSE, VersionEffect.BETTER)
        told = next((e for e in (newer.flag_off, newer.flag_fixed) if e in differing), None)
        return told is VersionEffect.BETTER

    def _phrases(self, findings: Findings, here: str, there: str | None) -> dict[str, str]:
        fixed = self._compared(self.flag_fixed)
        return {
            "there": _called(there),
            "coin_here": self._tossed(here),
            "coin_there": self._tossed(there),
            "off": self._compared(self.flag_off),
            "fixed": fixed,
            "and_alike": f"; with the same variant {fixed}" if fixed else "",
            "missing": self._missing(findings, here, there),
        }

    def _tossed(self, version: str | None) -> str:
        coin = None if version is None else self.coins.get(version)
        if coin is None:
            return f"on {_called(version)} nobody is without the feature, or nobody has it"
        total = coin.treatment_units + coin.control_units
        return (
            f"on {_called(version)} {coin.treatment_units} of {total} failing units had the "
            f"feature, {coin.expected_share:.1%} expected by chance"
        )

    def _compared(self, comparison: TwoSample | None) -> str:
        if comparison is None:
            return ""
        more, less = _called(self.newer), _called(self.older)
        ratio, low, high = comparison.ratio, comparison.low, comparison.high
        if ratio < 1.0:
            more, less = less, more
            ratio, low, high = 1 / ratio, 1 / high, 1 / low if low else float("inf")
        most = f"{low:.1f} to {high:.1f}" if isfinite(high) else f"{low:.1f} or more"
        return f"{more} fails {ratio:.1f} times as often as {less} (at {CONFIDENCE:.0%}, {most})"

    def _missing(self, findings: Findings, here: str, there: str | None) -> str:
        """Return what would have to be known."""
        missing = []
        if findings.flag_here is FlagEffect.ABSENT:
            missing.append(self._tossed(here))
        elif findings.flag_here is FlagEffect.UNKNOWN:
            missing.append(f"too little to tell what the flag does: {self._tossed(here)}")
        if self.flag_fixed is not None and findings.flag_fixed is not VersionEffect.SAME:
            pair = f"{_called(here)} and {_called(there)}"
            if findings.flag_fixed is VersionEffect.WORSE:
                missing.append(f"with the same variant {self._compared(self.flag_fixed)}")
            elif not self.flag_fixed.treatment_exposures:
                missing.append(f"{pair} have not served the same variant side by side")
            else:
                failed = self.flag_fixed.treatment_units + self.flag_fixed.control_units
                missing.append(f"{pair} had {failed} failing units side by side, too few to tell")
        return "; ".join(missing)


def _called(version: str | None) -> str:
    return version or "the version without a name"


def figures(comparison: TwoSample | None) -> dict[str, Any] | None:
    """Return the figures for JSON, which knows no infinity."""
    if comparison is None:
        return None
    return {**asdict(comparison), "high": comparison.high if isfinite(comparison.high) else None}
