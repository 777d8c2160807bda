"""The experts of one comparison: each a stream of first failures since it was opened.

Which streams exist, when they open and what share of alpha each has may depend on anything but the
sides on which units fall; that is what lets them err with at most alpha together (union bound).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from flagd_sdk.core.guard.agreement import Agreement
from flagd_sdk.core.guard.coin import AT_A_CHANGE, CoinBets, EProcess, Onset, Tosses
from flagd_sdk.core.guard.tosses import TossLog

LIFE_S = 7 * 86_400.0
# So few failing units of a treatment prove nothing, whatever their evidence.
LEAST_TREATMENT_UNITS = 3
# Beyond these a kind's share of alpha is too small to matter; its units still count as errors.
KINDS_PER_EPOCH = 40


def harmonic_share(j: int) -> float:
    """Return 1 / (j (j + 1)): shares for j = 1, 2, … that sum to 1."""
    return 1.0 / (j * (j + 1))


@dataclass(slots=True)
class Batch:
    """New units of one summary, both sides together, and what they multiply a stream's bets by.

    Attributes:
        treatment_mass, control_mass: Σ (1 - s) over the treatment's units, Σ s over the control's.
    """

    in_treatment: int
    in_control: int
    treatment_mass: float
    control_mass: float
    multipliers: list[float]

    @classmethod
    def of(cls, bets: CoinBets, sides: Iterable[tuple[float, bool]]) -> "Batch":
        """Weigh units, each given as (s, is in the treatment)."""
        tosses = by_share(sides)
        in_treatment = in_control = 0
        treatment_mass = control_mass = 0.0
        for s, treated, spared in tosses:
            in_treatment += treated
            in_control += spared
            treatment_mass += (1.0 - s) * treated
            control_mass += s * spared
        return cls(
            in_treatment,
            in_control,
            treatment_mass,
            control_mass,
            bets.multipliers(tosses),
        )


def by_share(sides: Iterable[tuple[float, bool]]) -> list[Tosses]:
    """Count units, each given as (s, is in the treatment), by their coin."""
    counts: dict[float, list[int]] = {}
    for s, in_treatment in sides:
        counts.setdefault(s, [0, 0])[not in_treatment] += 1
    return [(s, treated, spared) for s, (treated, spared) in sorted(counts.items())]


@dataclass(slots=True, eq=False)
class Stream:
    """One expert.

    Attributes:
        kind: index of the error kind it listens to, or None for every kind.
        share: its share w of alpha.
        first_batch: the first batch of the toss log that it may hear; of a unit, it hears only
            the first toss from there on.
        coin: the e-process on the split's own coin.
        onset: the prior on when the fault began, on the stream's own clock.
        used: the part of the onset's time that its last batch had used up; None before the first.
        lowest: the least value of the coin so far.
        began: when the evidence began: the time of the first batch after that least value.
        agreement: what must agree before it kills, as far as it was asked for. A function of the
            toss log, so it is not stored.
    """

    kind: int | None
    share: float
    opened_s: float
    first_batch: int
    coin: EProcess
    onset: Onset = AT_A_CHANGE
    used: float | None = None
    in_treatment: int = 0
    in_control: int = 0
    treatment_mass: float = 0.0
    control_mass: float = 0.0
    lowest: float = 1.0
    began: float | None = None
    agreement: Agreement | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls,
        bets: CoinBets,
        *,
        kind: int | None,
        share: float,
        at: float,
        batch: int,
        onset: Onset = AT_A_CHANGE,
    ) -> "Stream":
        return cls(kind, share, at, batch, EProcess.start(bets), onset)

    def toss(self, bets: CoinBets, t: float, batch: Batch) -> float:
        """Multiply one summary's new units in, both sides together, mass injected once.

        Returns:
            The score after it.
        """
        onset, coin = self.onset, self.coin
        now = onset.elapsed(t - self.opened_s)
        mass = onset.mass(now, self.used)
        self.used = now
        prior = bets.prior if self.kind is None else bets.kind_prior
        coin.update(prior, mass, batch.multipliers)
        self.in_treatment += batch.in_treatment
        self.in_control += batch.in_control
        self.treatment_mass += batch.treatment_mass
        self.control_mass += batch.control_mass
        value = coin.value
        if value <= self.lowest:
            self.lowest = value
            self.began = None
        elif self.began is None:
            self.began = t
        return value * self.share

    def agreed(self, log: TossLog, tau: int) -> Agreement:
        """Return what must agree with a stream that has risen, up to date with the log.

        Args:
            tau: the log's hash threshold.
        """
        assert self.began is not None, "its value is above the least it has had"
        known = self.agreement
        if known is None or known.began != self.began or known.tau != tau:
            known = self.agreement = Agreement.since(self.began, self.kind, log, tau)
        known.catch_up(log)
        return known

    @property
    def score(self) -> float:
        """The e-value in proportion to the share of alpha: decisive at 1 / alpha."""
        return self.coin.value * self.share

    def restarted(self, bets: CoinBets) -> "Stream":
        """Return the stream as it was when it opened, to be fed again."""
        return Stream.open(
            bets,
            kind=self.kind,
            share=self.share,
            at=self.opened_s,
            batch=self.first_batch,
            onset=self.onset,
        )

    @property
    def expected_share(self) -> float:
        """The share of its units that chance alone puts in the treatment."""
        total = self.in_treatment + self.in_control
        expected = self.in_treatment - self.treatment_mass + self.control_mass
        return expected / total if total else 0.0

    def to_document(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "share": self.share,
            "opened_s": self.opened_s,
            "first_batch": self.first_batch,
            "coin": asdict(self.coin),
            "onset": asdict(self.onset),
            "used": self.used,
            "in_treatment": self.in_treatment,
            "in_control": self.in_control,
            "treatment_mass": self.treatment_mass,
            "control_mass": self.control_mass,
            "lowest": self.lowest,
            "began": self.began,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Stream":
        fields = dict(document)
        fields["coin"] = EProcess(**fields["coin"])
        fields["onset"] = Onset(**fields["onset"])
        return cls(**fields)


@dataclass(slots=True, eq=False)
class Epoch:
    """A fresh memory of units: one all-errors stream, and one for each kind that appears in it.

    Attributes:
        name: for people, such as "life" or "epoch 2 (weights)".
        kinds_share: share of alpha for all its kinds together.
        kinds: in order of appearance, by kind index.
        is_clock: it opened by the clock, not with the life or an announced change.
    """

    name: str
    kinds_share: float
    errors: Stream
    kinds: dict[int, Stream] = field(default_factory=dict)
    is_clock: bool = False

    @classmethod
    def open(
        cls,
        bets: CoinBets,
        name: str,
        *,
        errors_share: float,
        kinds_share: float,
        at: float,
        batch: int,
        onset: Onset = AT_A_CHANGE,
        is_clock: bool = False,
    ) -> "Epoch":
        errors = Stream.open(bets, kind=None, share=errors_share, at=at, batch=batch, onset=onset)
        return cls(name, kinds_share, errors, is_clock=is_clock)

    def stream_for(self, kind: int, bets: CoinBets, t: float, batch: int) -> Stream | None:
        """Return the kind's stream, opened at its first event; None beyond the bound on kinds."""
        stream = self.kinds.get(kind)
        if stream is None and self.kinds_share and len(self.kinds) < KINDS_PER_EPOCH:
            share = self.kinds_share * harmonic_share(len(self.kinds) + 1)
            stream = Stream.open(
                bets, kind=kind, share=share, at=t, batch=batch, onset=self.errors.onset
            )
            self.kinds[kind] = stream
        return stream

    def restarted(self, bets: CoinBets) -> "Epoch":
        """Return the epoch as it was when it opened, without any kind."""
        errors = self.errors.restarted(bets)
        return Epoch(self.name, self.kinds_share, errors, is_clock=self.is_clock)

    def to_document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kinds_share": self.kinds_share,
            "errors": self.errors.to_document(),
            "kinds": [stream.to_document() for stream in self.kinds.values()],
            "is_clock": self.is_clock,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Epoch":
        kinds = [Stream.from_document(row) for row in document["kinds"]]
        errors = Stream.from_document(document["errors"])
        return cls(
            document["name"],
            document["kinds_share"],
            errors,
            {stream.kind: stream for stream in kinds if stream.kind is not None},
            document["is_clock"],
        )
