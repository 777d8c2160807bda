"""Flag or version? What is found about two versions of a service, and the table of verdicts.

Two questions are asked. Does the flag hurt on a version? The coin test, restricted to the events of
that version, answers, and is as good as the randomisation. Does the version hurt with the flag held
fixed? The two-sample comparison answers, approximately. So a verdict explains a decision and gates
a rollout; it never kills.

Not seen is not the same as not there: no is said only where a doubling was refuted, by an e-value
of its own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from math import log
from typing import NamedTuple

from flagd_server.stats.intervals import log_evidence_below
from flagd_server.stats.two_sample import TwoSample

# For yes, and for no: each is wrong with a probability of at most one over its bar, over all times.
# A verdict decides nothing, so both are far below a kill's threshold.
HARM_BAR = 100.0
REFUTED_BAR = 20.0
_DOUBLED = 2.0


class Word(StrEnum):
    FLAG = "flag"
    VERSION = "version"
    BOTH = "both"
    FLAG_HERE = "flag on this version only"
    NEITHER = "neither"
    CANNOT_TELL = "cannot tell yet"


class FlagEffect(StrEnum):
    """Does the flag hurt on a version? ABSENT: no coin is tossed there, or there is no version."""

    HARMS = "harms"
    HARMLESS = "harmless"
    UNKNOWN = "unknown"
    ABSENT = "absent"


class VersionEffect(StrEnum):
    """How does a version compare with another? ABSENT: there is no other."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "same"
    UNKNOWN = "unknown"
    ABSENT = "absent"

    def reversed(self) -> "VersionEffect":
        """Return how the other compares with this one."""
        opposite = {VersionEffect.WORSE: VersionEffect.BETTER}
        opposite |= {better: worse for worse, better in opposite.items()}
        return opposite.get(self, self)


@dataclass(frozen=True, slots=True)
class VersionCoin:
    """The coin test restricted to the events of one version.

    Attributes:
        e_value: of the all-errors stream of the life, run again on these events alone.
        treatment_units, control_units: failing units, each once.
        expected_share: the share of them that chance alone puts in the treatment.
    """

    e_value: float
    treatment_units: int
    control_units: int
    expected_share: float

    @property
    def effect(self) -> FlagEffect:
        if self.e_value >= HARM_BAR:
            return FlagEffect.HARMS
        # Where weights changed this takes one share for all: a no comes a little early (Jensen).
        tosses = [(self.expected_share, self.treatment_units, self.control_units)]
        if log_evidence_below(tosses, _DOUBLED) >= log(REFUTED_BAR):
            return FlagEffect.HARMLESS
        return FlagEffect.UNKNOWN


def effect_of_version(comparison: TwoSample) -> VersionEffect:
    """Return how the comparison's treatment does."""
    if max(comparison.worse, comparison.better) >= HARM_BAR:
        is_worse = comparison.worse >= comparison.better
        return VersionEffect.WORSE if is_worse else VersionEffect.BETTER
    if min(comparison.double_refuted, comparison.half_refuted) >= REFUTED_BAR:
        return VersionEffect.SAME
    return VersionEffect.UNKNOWN


class Findings(NamedTuple):
    """What is known of a pair of versions.

    "Here" is the version in question: the one on which the flag hurts, where it hurts on one of the
    two; else the one that fails more often; else the newer. "There" is the other.

    Attributes:
        flag_off: here compared with there among those who were served the control.
        flag_fixed: the same among all, each variant by itself.
    """

    flag_here: FlagEffect
    flag_there: FlagEffect
    flag_off: VersionEffect
    flag_fixed: VersionEffect


class Row(NamedTuple):
    """A row of the table: what it asks of each finding (empty: nothing), and what it says."""

    flag_here: Collection[FlagEffect]
    flag_there: Collection[FlagEffect]
    flag_off: Collection[VersionEffect]
    flag_fixed: Collection[VersionEffect]
    word: Word
    reason: str

    def matches(self, findings: Findings) -> bool:
        asked = (self.flag_here, self.flag_there, self.flag_off, self.flag_fixed)
        return all(
            not wanted or found in wanted for wanted, found in zip(asked, findings, strict=True)
        )


_HARMS, _HARMLESS = (FlagEffect.HARMS,), (FlagEffect.HARMLESS,)
_ABSENT = (FlagEffect.ABSENT,)
_WORSE, _DIFFERS = (VersionEffect.WORSE,), (VersionEffect.WORSE, VersionEffect.BETTER)
_ALIKE = (VersionEffect.SAME, VersionEffect.ABSENT)

# The first row that matches is the verdict. The words in braces are sentences about the figures.
# fmt: off
TABLE = (
    #   the flag here, there; the versions with the flag off, with the flag held fixed
    Row(_HARMS, (), _DIFFERS, (), Word.BOTH,
        "{coin_here}; and with the flag off {off}"),
    Row(_HARMS, _HARMS, (), (), Word.FLAG,
        "{coin_here}, and {coin_there}"),
    Row(_HARMS, _HARMLESS, (), (), Word.FLAG_HERE,
        "{coin_here}, but {coin_there}, where a doubling would have been seen"),
    # The same variant fails more often here than there, and the version alone is not to blame.
    Row(_HARMS, (), (), _WORSE, Word.FLAG_HERE,
        "{coin_here}; and with the same variant {fixed}"),
    Row(_HARMS, _ABSENT, (), (), Word.FLAG,
        "{coin_here}"),
    Row(_HARMS, (), (), (), Word.FLAG,
        "{coin_here}; too few failed on {there} to tell whether it hurts there too"),
    Row((), (), _WORSE, (), Word.VERSION,
        "with the flag off {off}"),
    Row(_HARMLESS, (), (), _WORSE, Word.VERSION,
        "with the same variant {fixed}, and the flag is not why: {coin_here}"),
    # Where all have the feature no coin is tossed; what differs is the version.
    Row(_ABSENT, (), (), _WORSE, Word.VERSION,
        "with the same variant {fixed}"),
    Row(_HARMLESS, (), (), _ALIKE, Word.NEITHER,
        "{coin_here}{and_alike}: a doubling would have been seen"),
    Row((), (), (), (), Word.CANNOT_TELL,
        "{missing}"),
)
# fmt: on


def find_row(findings: Findings) -> Row:
    """Return the first row that matches; the last matches everything."""
    return next(row for row in TABLE if row.matches(findings))
