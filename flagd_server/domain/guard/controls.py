"""Which variant of a split the others are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flagd_server.domain.guard.records import Cell, Policy


@dataclass(slots=True)
class Controls:
    """Attributes:
    chosen: split → its control, from when the split first had two arms.
    served: split → variant → the first configuration version that exposed anyone to it.
    """

    chosen: dict[str, str] = field(default_factory=dict)
    served: dict[str, dict[str, int]] = field(default_factory=dict)

    def note(self, split: str, cell: Cell) -> None:
        """Remember what was served first; what comes later may need it as its control."""
        self.served.setdefault(split, {}).setdefault(cell.variant, cell.config_version)

    def of(self, split: str, arms: Mapping[str, int], version: int, policy: Policy) -> str | None:
        """Return the variant to compare with, None where there is none.

        The policy's control, else the off variant, else the variant of the greatest weight that
        was already served before this version of the configuration.

        Args:
            arms: the variants with weight in this version, and their weights.
        """
        if len(arms) < 2:
            return None
        if policy.control is not None:
            return policy.control if policy.control in arms else None
        if self.chosen.get(split) not in arms:
            self.chosen[split] = self._choose(split, arms, version, policy)
        return self.chosen[split]

    def _choose(self, split: str, arms: Mapping[str, int], version: int, policy: Policy) -> str:
        if policy.off_variant is not None and policy.off_variant in arms:
            return policy.off_variant
        served = self.served[split]
        before = [name for name in arms if served.get(name, version) < version]
        # Where two are alike any choice does; by name, it can be made again.
        return min(before or arms, key=lambda name: (-arms[name], name))

    def copy(self, *, keep_chosen: bool) -> "Controls":
        """Return what the next life starts with; another policy may want another control."""
        served = {split: dict(first) for split, first in self.served.items()}
        return Controls(dict(self.chosen) if keep_chosen else {}, served)
