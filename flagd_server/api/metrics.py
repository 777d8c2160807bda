"""What Prometheus reads from `/metrics`; every application has a registry of its own.

A label never carries what a client made up: the route is the rule that matched, the method one
that the server knows.
"""

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Sequence

from flask import Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flagd_server.hub.base import HubStatistics
from flagd_server.services.guarding import WatchState
from flagd_server.services.overview import FlagCounts

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

# From a 304 out of memory to a kill that waits 30 s for its receipt.
_DURATION_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)


class Metrics:
    """The counters of one application. Safe for any thread."""

    def __init__(
        self,
        *,
        version: str,
        git_sha: str,
        hub_statistics: Callable[[], HubStatistics],
        flag_counts: Callable[[], Sequence[FlagCounts]],
        watch_states: Callable[[], Sequence[WatchState]],
    ) -> None:
        """The three functions are called at each scrape."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "flagd_http_requests",
            "Requests answered, by route.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._durations = Histogram(
            "flagd_http_request_duration_seconds",
            "Time from the request to its answer; a stream's ends when it is opened.",
            ["route"],
            buckets=_DURATION_BUCKETS_S,
            registry=self._registry,
        )
        self._summaries = Counter(
            "flagd_telemetry_summaries",
            "Telemetry summaries made durable, or known already.",
            ["environment", "outcome"],
            registry=self._registry,
        )
        self._cells = Counter(
            "flagd_telemetry_cells",
            "Cells in summaries, counted or refused.",
            ["environment", "outcome"],
            registry=self._registry,
        )
        self._decisions = Counter(
            "flagd_guard_decisions",
            "Flags that the guard decided against; killed where the mode is enforce.",
            ["environment", "mode"],
            registry=self._registry,
        )
        self._capped = Counter(
            "flagd_telemetry_capped",
            "Times that a reporter met a limit.",
            ["environment", "limit"],
            registry=self._registry,
        )
        self._alarms = Counter(
            "flagd_alarms",
            "Alarms, each time that one was raised.",
            ["environment", "kind"],
            registry=self._registry,
        )
        Gauge(
            "flagd_build_info", "The running code.", ["version", "git_sha"], registry=self._registry
        ).labels(version, git_sha).set(1)
        self._registry.register(_Live(hub_statistics, flag_counts, watch_states))
        # Looking a label up costs more than counting. Routes and environments are few, so what is
        # kept is bounded; two threads that fill one entry at once store the same child.
        self._by_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._by_summary: dict[tuple[str, bool], tuple[Counter, Counter, Counter]] = {}

    def start_request(self) -> None:
        g.started_s = time.perf_counter()

    def count_request(self, response: Response) -> Response:
        """Count the request that `response` answers, and return the response."""
        route = request.url_rule.rule if request.url_rule is not None else "unmatched"
        method = request.method if request.method in _METHODS else "OTHER"
        self.count(route, method, response.status_code, time.perf_counter() - g.started_s)
        return response

    def count(self, route: str, method: str, status: int, duration_s: float) -> None:
        key = (route, method, status)
        children = self._by_request.get(key)
        if children is None:
            children = (
                self._requests.labels(route, method, str(status)),
                self._durations.labels(route),
            )
            self._by_request[key] = children
        children[0].inc()
        children[1].observe(duration_s)

    def count_summary(
        self, environment: str, *, duplicate: bool, accepted: int, refused: int
    ) -> None:
        key = (environment, duplicate)
        children = self._by_summary.get(key)
        if children is None:
            children = (
                self._summaries.labels(environment, "duplicate" if duplicate else "stored"),
                self._cells.labels(environment, "accepted"),
                self._cells.labels(environment, "refused"),
            )
            self._by_summary[key] = children
        children[0].inc()
        children[1].inc(accepted)
        children[2].inc(refused)

    def count_decision(self, environment: str, mode: str) -> None:
        # Not by flag: a label for each would grow with the flags there ever were.
        self._decisions.labels(environment, mode).inc()

    def count_capped(self, environment: str, limit: str) -> None:
        self._capped.labels(environment, limit).inc()

    def count_alarm(self, environment: str, kind: str) -> None:
        self._alarms.labels(environment, kind).inc()

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Live(Collector):
    """What others count already, read at the scrape."""

    def __init__(
        self,
        hub_statistics: Callable[[], HubStatistics],
        flag_counts: Callable[[], Sequence[FlagCounts]],
        watch_states: Callable[[], Sequence[WatchState]],
    ) -> None:
        self._hub_statistics = hub_statistics
        self._flag_counts = flag_counts
        self._watch_states = watch_states

    def describe(self) -> list[Metric]:
        """Return nothing: registering must not read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        streams = self._hub_statistics()
        yield GaugeMetricFamily("flagd_streams_open", "Open streams.", streams.streams)
        yield CounterMetricFamily(
            "flagd_stream_events_published", "Events published.", streams.published
        )
        yield CounterMetricFamily("flagd_streams_cut", "Streams cut as too slow.", streams.cut)
        flags = GaugeMetricFamily("flagd_flags", "Flags delivered.", labels=["environment"])
        enabled = GaugeMetricFamily("flagd_flags_enabled", "Flags on.", labels=["environment"])
        killed = GaugeMetricFamily("flagd_flags_killed", "Flags killed.", labels=["environment"])
        braked = GaugeMetricFamily(
            "flagd_guard_brake_engaged",
            "1 where the guard kills nothing more until a person releases its brake.",
            labels=["environment"],
        )
        for counts in self._flag_counts():
            flags.add_metric([counts.environment], counts.flags)
            enabled.add_metric([counts.environment], counts.enabled)
            killed.add_metric([counts.environment], counts.killed)
            braked.add_metric([counts.environment], counts.is_braked)
        yield from (flags, enabled, killed, braked)
        yield from self._guard_metrics()

    def _guard_metrics(self) -> Iterator[Metric]:
        """Yield how many flags are guarded, held, and not seen: silence is not health."""
        guarded: Counts[str] = Counts()
        held: Counts[str] = Counts()
        blind: Counts[tuple[str, str]] = Counts()
        for state in self._watch_states():
            guarded[state.environment] += 1
            held[state.environment] += state.is_held
            blind.update((state.environment, reason) for reason in state.blind)
        for name, text, counts in (
            ("flagd_guard_flags", "Flags under guard.", guarded),
            ("flagd_guard_flags_held", "Flags that the guard holds back.", held),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["environment"])
            for environment, count in counts.items():
                gauge.add_metric([environment], count)
            yield gauge
        unseen = GaugeMetricFamily(
            "flagd_guard_flags_blind",
            "Flags whose guard cannot see, by reason.",
            labels=["environment", "reason"],
        )
        for (environment, reason), count in blind.items():
            unseen.add_metric([environment, reason], count)
        yield unseen
