"""What configuration versions can have served: cells that say otherwise are refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cachetools import LRUCache

from flagd_server.domain.faults import Fault
from flagd_server.domain.latency_hours import measured_variant
from flagd_server.domain.telemetry import Cell, Summary
from flagd_server.storage.base import Reader

_VERSIONS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class ServedSplit:
    """A split with the variant whose latency is its norm."""

    weights: Mapping[str, int]
    measured: str


class BelievableCell(NamedTuple):
    """A cell that can have been served; `split` is None where no split decided."""

    place: int  # in the summary
    cell: Cell
    split: ServedSplit | None


@dataclass(frozen=True, slots=True)
class _Version:
    """What a cell may name of one configuration version."""

    variants: frozenset[str]
    splits: Mapping[str, ServedSplit]

    def refuse(self, cell: Cell) -> tuple[str, str] | None:
        """Return (field, message) for a cell that this version cannot have served."""
        if cell.variant not in self.variants:
            return "variant", f"expected a variant of that version, got {cell.variant!r}"
        if cell.split is None:
            return None
        split = self.splits.get(cell.split)
        if split is None:
            return "split", f"expected a split of that version, got {cell.split!r}"
        if not split.weights.get(cell.variant):
            return "variant", f"expected one with weight in {cell.split!r}, got {cell.variant!r}"
        return None


class ServedVersions:
    """Remembers the versions that were asked for. Not thread-safe."""

    def __init__(self) -> None:
        self._versions: LRUCache[tuple[str, str, int], _Version] = LRUCache(_VERSIONS_REMEMBERED)

    def forget(self) -> None:
        self._versions.clear()

    def sort_out(
        self, reader: Reader, environment: str, summary: Summary
    ) -> tuple[dict[str, list[BelievableCell]], list[Fault]]:
        """Return the believable cells by flag, and the faults of the others."""
        good: dict[str, list[BelievableCell]] = {}
        refused = []
        for index, cell in enumerate(summary.cells):
            if cell is None:
                continue
            version = self._version(reader, environment, cell.flag, cell.config_version)
            if version is None:
                message = (
                    f"expected a configuration version of flag {cell.flag!r} in {environment}, "
                    f"got {cell.config_version}"
                )
                refused.append(Fault(f"cells[{index}].config_version", message))
            elif (refusal := version.refuse(cell)) is not None:
                refused.append(Fault(f"cells[{index}].{refusal[0]}", refusal[1]))
            else:
                split = None if cell.split is None else version.splits[cell.split]
                good.setdefault(cell.flag, []).append(BelievableCell(index, cell, split))
        return good, refused

    def _version(self, reader: Reader, environment: str, flag: str, number: int) -> _Version | None:
        key = (environment, flag, number)
        try:
            return self._versions[key]
        except KeyError:
            version = _read(reader, environment, flag, number)
            if version is not None:
                self._versions[key] = version
            return version


def _read(reader: Reader, environment: str, flag: str, number: int) -> _Version | None:
    row = reader.configuration_version(environment, flag, number)
    if row is None:
        return None
    control, off_variant = row.configuration.guard["control"], row.configuration.off_variant
    return _Version(
        frozenset(row.variants),
        {
            name: ServedSplit(weights, measured_variant(weights, control, off_variant))
            for name, weights in row.configuration.split_weights().items()
        },
    )
