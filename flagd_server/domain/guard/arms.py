"""The two arms of a comparison as they were served: exposures, processes, releases.

Everything here is shared by the metrics of a pair. Nothing is said of failures but their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flagd_sdk.core.guard.window import WINDOW_S, RateWindow
from flagd_server.domain.guard.records import Cell

# Indices are 16-bit columns of the toss log; what comes later shares the last one.
MOST_INSTANCES = 5_000
MOST_RELEASES = 1_000
OTHERS = "others"


@dataclass(slots=True)
class Counts:
    """Sums over requests, for people and for rates."""

    exposures: int = 0
    errors: int = 0

    def add(self, exposures: int, errors: int) -> None:
        self.exposures += exposures
        self.errors += errors


@dataclass(slots=True)
class Instance:
    """A process that reported, by one token.

    Attributes:
        index: its place in the order of appearance, as the toss log names it.
        since: when it was first known.
        served_treatment: when it last served the treatment.
        is_set_aside: nothing that it reports is believed any more.
    """

    index: int
    name: str
    token: str
    since: float
    served_treatment: float | None = None
    in_treatment: Counts = field(default_factory=Counts)
    in_control: Counts = field(default_factory=Counts)
    is_set_aside: bool = False

    @property
    def exposures(self) -> int:
        return self.in_treatment.exposures + self.in_control.exposures

    def to_document(self) -> list[Any]:
        return [
            self.name,
            self.token,
            self.since,
            self.served_treatment,
            self.in_treatment.exposures,
            self.in_treatment.errors,
            self.in_control.exposures,
            self.in_control.errors,
            self.is_set_aside,
        ]

    @classmethod
    def from_document(cls, index: int, row: list[Any]) -> "Instance":
        name, token, since, served, exposed_t, failed_t, exposed_c, failed_c, is_set_aside = row
        treatment, control = Counts(exposed_t, failed_t), Counts(exposed_c, failed_c)
        return cls(index, name, token, since, served, treatment, control, is_set_aside)


@dataclass(slots=True, eq=False)
class Arms:
    """One treatment and one control of a split. Fed in the order of commit; not thread-safe.

    Attributes:
        in_treatment, in_control: requests of either arm over the life, of those still believed.
        instances: by (name, token), in order of appearance.
        releases: (service, version) → index, in order of appearance.
        last_treatment, last_control: when either arm was last exposed.
        accused_at: metric → when somebody was found out of proportion who is not set aside yet.
        distrusted: tokens by which nothing is believed, whichever process they come from.
    """

    split: str
    treatment: str
    control: str
    in_treatment: Counts = field(default_factory=Counts)
    in_control: Counts = field(default_factory=Counts)
    window: RateWindow = field(default_factory=RateWindow)
    instances: dict[tuple[str, str], Instance] = field(default_factory=dict)
    releases: dict[tuple[str, str], int] = field(default_factory=dict)
    last_treatment: float | None = None
    last_control: float | None = None
    distrusted: set[str] = field(default_factory=set)
    accused_at: dict[str, float] = field(default_factory=dict)

    def observe(self, t: float, cells: list[Cell]) -> list[Cell]:
        """Count one summary's cells of the two arms; return those that are believed."""
        believed = []
        exposed_t = exposed_c = 0
        for cell in cells:
            # Whoever is not believed must not fill the room for processes with names, either.
            if cell.token in self.distrusted:
                continue
            instance = self.instances.get((cell.instance, cell.token)) or self._meet(t, cell)
            if instance.is_set_aside:
                continue
            believed.append(cell)
            release = (cell.service, cell.service_version)
            if release not in self.releases and len(self.releases) < MOST_RELEASES:
                self.releases[release] = len(self.releases)
            if cell.variant == self.treatment:
                exposed_t += cell.exposures
                instance.in_treatment.add(cell.exposures, cell.errors)
                self.in_treatment.add(cell.exposures, cell.errors)
                if cell.exposures:
                    instance.served_treatment = self.last_treatment = t
            else:
                exposed_c += cell.exposures
                instance.in_control.add(cell.exposures, cell.errors)
                self.in_control.add(cell.exposures, cell.errors)
                if cell.exposures:
                    self.last_control = t
        self.window.add(t, exposed_t, exposed_c)
        return believed

    def _meet(self, t: float, cell: Cell) -> Instance:
        key = (cell.instance, cell.token)
        if len(self.instances) >= MOST_INSTANCES:
            key = (OTHERS, "")
        since = t if cell.instance_since is None else min(t, cell.instance_since)
        return self.instances.setdefault(key, Instance(len(self.instances), *key, since))

    def instance_index(self, cell: Cell) -> int:
        known = self.instances.get((cell.instance, cell.token))
        return (self.instances[OTHERS, ""] if known is None else known).index

    def release_index(self, cell: Cell) -> int:
        """Return the release's index; beyond the bound all share the last."""
        return self.releases.get((cell.service, cell.service_version), MOST_RELEASES - 1)

    def set_aside(self, instances: list[Instance], token: str | None = None) -> None:
        """Believe these processes nothing any more, nor what they have said before.

        Args:
            token: by which they reported, where it is the token that is not to be believed.
        """
        if token is not None:
            self.distrusted.add(token)
        for instance in instances:
            if not instance.is_set_aside:
                instance.is_set_aside = True
                self.in_treatment.add(
                    -instance.in_treatment.exposures, -instance.in_treatment.errors
                )
                self.in_control.add(-instance.in_control.exposures, -instance.in_control.errors)
        # The window does not say whose exposures it holds; the honest ones soon fill it again.
        self.window = RateWindow()

    def disbelieves(self, cell: Cell) -> bool:
        """Return whether the cell comes from a process or by a token that was set aside."""
        known = self.instances.get((cell.instance, cell.token))
        return cell.token in self.distrusted or (known is not None and known.is_set_aside)

    def serving(self, t: float) -> Iterator[Instance]:
        """Yield the believed processes that served the treatment in the last ten minutes."""
        for instance in self.instances.values():
            served = instance.served_treatment
            if served is not None and served > t - WINDOW_S and not instance.is_set_aside:
                yield instance

    def to_document(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "treatment": self.treatment,
            "control": self.control,
            "in_treatment": [self.in_treatment.exposures, self.in_treatment.errors],
            "in_control": [self.in_control.exposures, self.in_control.errors],
            "window": self.window.to_document(),
            "instances": [instance.to_document() for instance in self.instances.values()],
            "releases": [list(release) for release in self.releases],
            "last_treatment": self.last_treatment,
            "last_control": self.last_control,
            "distrusted": sorted(self.distrusted),
            "accused_at": self.accused_at,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Arms":
        instances = [
            Instance.from_document(index, row) for index, row in enumerate(document["instances"])
        ]
        return cls(
            document["split"],
            document["treatment"],
            document["control"],
            Counts(*document["in_treatment"]),
            Counts(*document["in_control"]),
            RateWindow.from_document(document["window"]),
            {(instance.name, instance.token): instance for instance in instances},
            {(service, version): k for k, (service, version) in enumerate(document["releases"])},
            document["last_treatment"],
            document["last_control"],
            set(document["distrusted"]),
            document["accused_at"],
        )
