"""What health checks, Prometheus and Alertmanager answer: from bytes to facts, with no network.

Whatever is not the answer that was expected is `Unknown`, with a reason for a person to read:
nothing that is missing here can be taken for health later.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

MAX_NAMED = 5
"""So many alerts or series are named to a person; of the others it is said how many there are."""
_HTTP_OK = 200

Kind = Literal["health", "prometheus", "alertmanager"]


@dataclass(frozen=True, slots=True)
class Question:
    """A GET; the kind says how its answer is read."""

    kind: Kind
    url: str


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """A health check's status."""

    status: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of an instant query; `labels` as Prometheus writes them, empty for a scalar."""

    labels: str
    value: float


@dataclass(frozen=True, slots=True)
class Samples:
    """All values of an instant query. There may be none, and one may be no finite number."""

    items: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Alerts:
    """The alerts that fire, neither silenced nor inhibited: names of a few, and how many."""

    names: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no answer; `detail` says why."""

    detail: str


Answer = HealthAnswer | Samples | Alerts | Unknown


def health_question(url: str) -> Question:
    return Question("health", url)


def prometheus_question(url: str, query: str) -> Question:
    """Return the instant query; `url` is the server's, below which its API is."""
    return Question("prometheus", f"{url.rstrip('/')}/api/v1/query?{urlencode({'query': query})}")


def alertmanager_question(url: str, matchers: Iterable[str]) -> Question:
    """Return the question for alerts that all matchers fit, such as `severity="page"`."""
    # Alertmanager has to say of each whether it is suppressed: what it leaves out by itself, it
    # might leave out for another reason.
    query = urlencode([("filter", matcher) for matcher in matchers])
    return Question("alertmanager", f"{url.rstrip('/')}/api/v2/alerts?{query}")


def read_answer(kind: Kind, status: int, body: bytes) -> Answer:
    """Return what the answer to a question of this kind says."""
    if kind == "health":
        return HealthAnswer(status)
    name = kind.capitalize()
    if status != _HTTP_OK:
        return Unknown(f"{name} answered with status {status}{_error_of(body)}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return Unknown(f"{name} answered with something that is no JSON")
    read = _read_samples if kind == "prometheus" else _read_alerts
    try:
        return read(document)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return Unknown(f"{name}'s answer is not of the form that its API has")


def _error_of(body: bytes) -> str:
    """Return what Prometheus says about a query that it refuses."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return f": {error[:300]}" if isinstance(error, str) else ""


def _read_samples(document: Any) -> Answer:
    if document["status"] != "success":
        return Unknown(f"Prometheus could not answer: {str(document.get('error'))[:300]}")
    warnings = document.get("warnings")
    if warnings:
        return Unknown(f"Prometheus answered in part only: {str(warnings[0])[:300]}")
    kind, result = document["data"]["resultType"], document["data"]["result"]
    if kind == "scalar":
        return Samples((Sample("", _number(result)),))
    if kind != "vector":
        return Unknown(f"the query gives a {kind!r:.40}; expected a vector or a scalar")
    return Samples(tuple(Sample(_labels(row["metric"]), _number(row["value"])) for row in result))


def _number(value: Any) -> float:
    _, text = value
    if not isinstance(text, str):
        raise TypeError("a sample's value is a string")
    return float(text)


def _labels(metric: Mapping[str, str]) -> str:
    named = dict(metric)
    name = named.pop("__name__", "")
    pairs = ", ".join(f'{key}="{value}"' for key, value in sorted(named.items()))
    return f"{name}{{{pairs}}}"[:200] if pairs else name[:200]


def _read_alerts(document: Any) -> Answer:
    if not isinstance(document, list):
        raise TypeError("the alerts are a list")
    firing = []
    for row in document:
        state, labels = row["status"]["state"], row["labels"]
        if state not in ("active", "suppressed", "unprocessed"):
            raise ValueError(state)
        # One that is not yet processed may turn out to be silenced; until then it fires.
        if state != "suppressed":
            firing.append(str(labels["alertname"])[:100])
    names = sorted(set(firing))
    return Alerts(tuple(names[:MAX_NAMED]), len(firing))


def finite(samples: Samples) -> tuple[Sample, ...]:
    """Return the samples that are numbers: a division by no traffic gives NaN or infinity."""
    return tuple(sample for sample in samples.items if math.isfinite(sample.value))
