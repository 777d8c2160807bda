"""The experts of one comparison: each a stream of first failures with its own memory of units.

Which streams exist, when they open and what share of alpha each has may depend on anything but the
sides on which units fall; that is what lets them err with at most alpha together (union bound).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flagd_server.stats.coin import FIRST_MASS, CoinBets, EProcess, Tosses, elapsed

# Shares of alpha: they sum to 1 over everything that may ever be opened in a life.
ERRORS_SHARE, KINDS_SHARE = 0.30, 0.30
ANNOUNCED_ERRORS_SHARE, ANNOUNCED_KINDS_SHARE = 0.15, 0.15
CLOCK_ERRORS_SHARE, CLOCK_KINDS_SHARE = 0.05, 0.05

LIFE_S = 7 * 86_400.0
CLOCK_EPOCH_S = 6 * 3_600.0
CLOCK_EPOCHS = int(LIFE_S / CLOCK_EPOCH_S)
EPOCHS_KEPT = 3
# Beyond these a kind's share of alpha is too small to matter; its units still count as errors.
KINDS_PER_EPOCH = 40


def harmonic_share(j: int) -> float:
    """Return 1 / (j (j + 1)): shares for j = 1, 2, … that sum to 1."""
    return 1.0 / (j * (j + 1))


@dataclass(slots=True)
class Stream:
    """One expert.

    Attributes:
        kind: index of the error kind it listens to, or None for every kind.
        share: its share w of alpha.
        first_batch: the first batch of the toss log that it may hear.
        coin: the e-process on the split's own coin.
        witness: for all-errors streams, the same on the treatment's share of recent exposures.
        used: G at its last batch: the prior mass injected since its first; None before that.
        memory: hashes of the units it has tossed.
        rising_since: when the evidence last left 1 upwards, None while it is at most 1.
    """

    kind: int | None
    share: float
    opened_s: float
    first_batch: int
    coin: EProcess
    witness: EProcess | None = None
    used: float | None = None
    memory: set[int] = field(default_factory=set)
    in_treatment: int = 0
    in_control: int = 0
    treatment_mass: float = 0.0
    control_mass: float = 0.0
    rising_since: float | None = None

    @classmethod
    def open(
        cls, bets: CoinBets, *, kind: int | None, share: float, at: float, batch: int
    ) -> "Stream":
        witness = EProcess.start(bets) if kind is None else None
        return cls(kind, share, at, batch, EProcess.start(bets), witness)

    def toss(
        self,
        bets: CoinBets,
        t: float,
        tosses: Sequence[Tosses],
        multipliers: list[float],
        rate_multipliers: list[float],
    ) -> None:
        """Multiply one summary's new units in, both sides together, mass injected once.

        Args:
            multipliers: of `tosses` under the coin; `rate_multipliers` the same under the
                treatment's share of recent exposures (read by all-errors streams only).
        """
        now = elapsed(t - self.opened_s)
        mass = FIRST_MASS if self.used is None else (1.0 - FIRST_MASS) * (now - self.used)
        self.used = now
        self.coin.update(bets.prior, mass, multipliers)
        if self.witness is not None:
            self.witness.update(bets.prior, mass, rate_multipliers)
        for s, in_treatment, in_control in tosses:
            self.in_treatment += in_treatment
            self.in_control += in_control
            self.treatment_mass += (1.0 - s) * in_treatment
            self.control_mass += s * in_control
        if self.coin.value <= 1.0:
            self.rising_since = None
        elif self.rising_since is None:
            self.rising_since = t

    @property
    def expected_share(self) -> float:
        """The share of its units that chance alone puts in the treatment."""
        total = self.in_treatment + self.in_control
        expected = self.in_treatment - self.treatment_mass + self.control_mass
        return expected / total if total else 0.0

    def to_document(self) -> dict[str, Any]:
        """Everything but the memory, which the toss log holds."""
        return {
            "kind": self.kind,
            "share": self.share,
            "opened_s": self.opened_s,
            "first_batch": self.first_batch,
            "coin": asdict(self.coin),
            "witness": None if self.witness is None else asdict(self.witness),
            "used": self.used,
            "in_treatment": self.in_treatment,
            "in_control": self.in_control,
            "treatment_mass": self.treatment_mass,
            "control_mass": self.control_mass,
            "rising_since": self.rising_since,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Stream":
        fields = dict(document)
        fields["coin"] = EProcess(**fields["coin"])
        if fields["witness"] is not None:
            fields["witness"] = EProcess(**fields["witness"])
        return cls(**fields)


@dataclass(slots=True)
class Epoch:
    """A fresh memory of units: one all-errors stream, and one for each kind that appears in it.

    Attributes:
        name: for people, such as "life" or "epoch 2 (weights)".
        kinds_share: share of alpha for all its kinds together.
        kinds: in order of appearance, by kind index.
    """

    name: str
    kinds_share: float
    errors: Stream
    kinds: dict[int, Stream] = field(default_factory=dict)

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
    ) -> "Epoch":
        errors = Stream.open(bets, kind=None, share=errors_share, at=at, batch=batch)
        return cls(name, kinds_share, errors)

    def stream_for(self, kind: int, bets: CoinBets, t: float, batch: int) -> Stream | None:
        """Return the kind's stream, opened at its first event; None beyond the bound on kinds."""
        stream = self.kinds.get(kind)
        if stream is None and len(self.kinds) < KINDS_PER_EPOCH:
            share = self.kinds_share * harmonic_share(len(self.kinds) + 1)
            stream = Stream.open(bets, kind=kind, share=share, at=t, batch=batch)
            self.kinds[kind] = stream
        return stream

    def streams(self) -> list[Stream]:
        return [self.errors, *self.kinds.values()]

    def to_document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kinds_share": self.kinds_share,
            "errors": self.errors.to_document(),
            "kinds": [stream.to_document() for stream in self.kinds.values()],
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
        )
