"""The users of a simulated life: few make most requests, and few most failures."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log
from operator import mul
from random import Random

from flagd_server.domain.guard.traffic import BUCKETS

ALL_HASHES = 1 << 64


@dataclass(frozen=True, slots=True)
class Arm:
    """The units on one side of a split.

    Attributes:
        volumes: cumulative shares of all requests, by member; `failures` the same weighted by
            frailty, `frailties` cumulative frailty alone.
    """

    members: Sequence[int]
    volumes: Sequence[float]
    failures: Sequence[float]
    frailties: Sequence[float]

    @property
    def volume(self) -> float:
        """Its share of all requests."""
        return self.volumes[-1] if self.volumes else 0.0

    @property
    def failure(self) -> float:
        """Its share of all failures, where the feature does nothing."""
        return self.failures[-1] if self.failures else 0.0


class Population:
    """Units with a volume, a frailty, a bucket and a hash each. Deterministic given its Random.

    Volumes follow Zipf's law and sum to 1. Frailties follow a gamma law with mean and variance 1,
    which is the exponential; the base rate is that of requests, so their mean over requests is
    made 1.
    """

    def __init__(self, units: int, zipf: float, random: Random) -> None:
        volumes = [rank**-zipf for rank in range(1, units + 1)]
        total = sum(volumes)
        self.volumes = [volume / total for volume in volumes]
        draw = random.random
        frailties = [-log(1.0 - draw()) for _ in range(units)]
        mean = sum(map(mul, self.volumes, frailties))
        self._frailties = [frailty / mean for frailty in frailties]
        self._buckets = [int(draw() * BUCKETS) for _ in range(units)]
        self._random = random
        self._hashes: dict[int, str] = {}

    def arms(self, on: int) -> tuple[Arm, Arm]:
        """Return (treatment, control) at this weight; a greater one moves nobody out."""
        treated, spared = list[int](), list[int]()
        for unit, bucket in enumerate(self._buckets):
            (treated if bucket < on else spared).append(unit)
        return self._arm(treated), self._arm(spared)

    def _arm(self, members: list[int]) -> Arm:
        volumes = [self.volumes[unit] for unit in members]
        frailties = [self._frailties[unit] for unit in members]
        return Arm(
            members,
            list(accumulate(volumes)),
            list(accumulate(map(mul, volumes, frailties))),
            list(accumulate(frailties)),
        )

    def is_treated(self, unit: int, on: int) -> bool:
        return self._buckets[unit] < on

    def hash_of(self, unit: int) -> str:
        """Return its hash as a summary has it, drawn when it is first asked for."""
        known = self._hashes.get(unit)
        if known is None:
            known = self._hashes[unit] = f"{self._random.getrandbits(64):016x}"
        return known
