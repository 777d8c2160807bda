"""What a page says again and again, read from an evidence document once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagd_server.domain.guard.prose.words import clean

Json = Mapping[str, Any]

_ERROR = "error:"
_SLOW = re.compile(r"slow:p(\d+)")
_EPOCH = re.compile(r"epoch (\d+) \((.*)\)")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a document, in words.

    Reports are kept for good: a key that was added since is missing from the older ones.
    """

    row: Json

    @property
    def metric(self) -> str:
        return str(self.row.get("metric", "errors"))

    @property
    def is_slow(self) -> bool:
        return self.metric != "errors"

    @property
    def arms(self) -> tuple[str, str]:
        """The variants: with the feature, and without it."""
        return clean(self.row["treatment"]["variant"]), clean(self.row["control"]["variant"])

    @property
    def units(self) -> tuple[int, int]:
        return self.row["treatment"]["failing_units"], self.row["control"]["failing_units"]

    @property
    def kind(self) -> str | None:
        """The one kind of error that its nearest stream hears; None where that hears all."""
        return kind_of(self.row["stream"]) if not self.is_slow else None

    @property
    def what_happened(self) -> str:
        """What befell the visitors that are counted: "ran into Boom", "had slow requests"."""
        if self.is_slow:
            return "had slow requests"
        return "had failed requests" if self.kind is None else f"ran into {self.kind}"

    @property
    def who(self) -> str:
        """Which visitors are counted: "who ran into Boom", "with a slow request"."""
        if self.is_slow:
            return "with a slow request"
        return "with a failed request" if self.kind is None else f"who ran into {self.kind}"

    @property
    def opened_at(self) -> float | None:
        """When its nearest stream began to listen."""
        found = (row for row in self.row.get("streams", ()) if row["name"] == self.row["stream"])
        return next((row["opened_at"] for row in found), None)


@dataclass(frozen=True, slots=True)
class Reading:
    """A document, decided or running, with what is looked for in it.

    Attributes:
        comparison: the one that the decision is about, else the errors'; None where nothing was
            compared.
        others: the other ones.
    """

    document: Json
    comparison: Comparison | None
    others: tuple[Comparison, ...]

    @classmethod
    def of(cls, document: Json) -> "Reading":
        decision = document.get("decision") or {}
        rows = list(document.get("comparisons", ()))

        has_decided = bool(decision.get("kill") or decision.get("hold"))

        def nearness(row: Json) -> tuple[bool, bool, float]:
            score = row["e_value"] / row["threshold"]
            if not has_decided:
                units = row["treatment"]["failing_units"] + row["control"]["failing_units"]
                return units > 0, row.get("metric", "errors") == "errors", score
            arms = (row["split"], row["treatment"]["variant"], row["control"]["variant"])
            decided = tuple(decision.get(name) for name in ("split", "treatment", "control"))
            return arms == decided, row["stream"] == decision.get("stream"), score

        rows.sort(key=nearness, reverse=True)
        first, *others = (Comparison(row) for row in rows) if rows else (None,)
        return cls(document, first, tuple(other for other in others if other is not None))

    @property
    def decision(self) -> Json:
        return self.document.get("decision") or {}

    @property
    def is_running(self) -> bool:
        """Whether it is about the present, and not about a decision."""
        return "action" not in self.document

    @property
    def guard(self) -> str:
        return str(self.decision.get("guard", "error_rate"))

    @property
    def name(self) -> str:
        return f"{clean(self.document['flag'])} in {clean(self.document['environment'])}"

    def notes(self, kind: str) -> list[Json]:
        return [note for note in self.document.get("notes", ()) if note["kind"] == kind]


def kind_of(stream: str) -> str | None:
    """Return the kind of error that a stream hears, without its prefix; None for all of them."""
    return clean(stream.rpartition(", ")[0].removeprefix(_ERROR)) if _ERROR in stream else None


def stream_in_words(name: str) -> str:
    """Return what a stream hears and since when: "all errors, from the start"."""
    what, _, epoch = name.rpartition(", ")
    slow = _SLOW.fullmatch(what)
    if slow is not None:
        what = f"slow requests (p{slow[1]})"
    elif what == "errors":
        what = "all errors"
    announced = _EPOCH.fullmatch(epoch)
    if announced is not None:
        since = f"since change {announced[1]} ({announced[2]})"
    else:
        since = "from the start" if epoch == "life" else f"since {epoch}"
    return clean(f"{what.removeprefix(_ERROR)}, {since}")
