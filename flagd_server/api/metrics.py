"""What Prometheus reads from `/metrics`; every application has a registry of its own.

A label never carries what a client made up: the route is the rule that matched, the method one
that the server knows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import get_ident

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flagd_server.api import exposure_metrics
from flagd_server.api.release_metrics import ReleaseMetrics
from flagd_server.domain.objectives import BURN_WINDOWS, SloState
from flagd_server.errors import StorageError
from flagd_server.hub.base import HubStatistics
from flagd_server.services.exposure_tally import Counted, Key
from flagd_server.services.guarding import WatchState
from flagd_server.services.overview import FlagCounts, Releasing
from flagd_server.storage.base import PoolUse

# From a fast loop on one machine to a process that was told by its next poll.
_KILL_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
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
        releasing: Callable[[], Releasing],
        exposures: Callable[[], Iterable[tuple[Key, Counted]]],
        local_kills: Callable[[], Mapping[str, int]],
        unconfirmed: Callable[[], Mapping[str, int]],
        slo_states: Callable[[], Sequence[SloState]],
        threads: int,
        telemetry_waiting: Callable[[], int],
        is_leading: Callable[[], bool],
        pools: Callable[[], Mapping[str, PoolUse]],
    ) -> None:
        """The functions are called at each scrape."""
        self._exposures = exposures
        self._registry = CollectorRegistry()
        # What names environments, flags and services: for those who may read them.
        self._named = CollectorRegistry()
        self._requests = Counter(
            "flagd_http_requests",
            "Requests answered, by route.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._durations = Histogram(
            "flagd_http_request_duration_seconds",
            "Time from the request to its answer; a stream's ends when it is opened.",
            ["route", "method", "status_class"],
            buckets=_DURATION_BUCKETS_S,
            registry=self._registry,
        )
        # Threads that are at a request. A set takes and drops one in a step, for less than a gauge.
        self._busy: set[int] = set()
        Gauge(
            "flagd_http_requests_in_flight",
            "Requests that have a thread: telemetry that waits for its commit has none.",
            registry=self._registry,
        ).set_function(lambda: len(self._busy))
        Gauge(
            "flagd_http_threads", "Requests that can be answered at once.", registry=self._registry
        ).set(threads)
        self._waiting = Gauge(
            "flagd_http_requests_waiting",
            "Requests that have come whole and wait for a thread.",
            registry=self._registry,
        )
        Gauge(
            "flagd_telemetry_waiting",
            "Summaries that wait to be made durable.",
            registry=self._registry,
        ).set_function(telemetry_waiting)
        Gauge(
            "flagd_leader",
            "1 where this server guards, rolls out and tells webhooks for all of its replicas.",
            registry=self._registry,
        ).set_function(lambda: float(is_leading()))
        self._transactions = Histogram(
            "flagd_storage_seconds",
            "How long the storage was written to or read, turns and waiting included.",
            ["kind", "outcome"],
            buckets=_DURATION_BUCKETS_S,
            registry=self._registry,
        )
        self._registry.register(_Pools(pools))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._summaries = Counter(
            "flagd_telemetry_summaries",
            "Telemetry summaries made durable, or known already.",
            ["environment", "outcome"],
            registry=self._named,
        )
        self._cells = Counter(
            "flagd_telemetry_cells",
            "Cells in summaries, counted or refused.",
            ["environment", "outcome"],
            registry=self._named,
        )
        self._decisions = Counter(
            "flagd_guard_decisions",
            "Flags that the guard decided against; killed where the mode is enforce.",
            ["environment", "mode"],
            registry=self._named,
        )
        self._capped = Counter(
            "flagd_telemetry_capped",
            "Times that a reporter met a limit.",
            ["environment", "limit"],
            registry=self._named,
        )
        self._alarms = Counter(
            "flagd_alarms",
            "Alarms, each time that one was raised.",
            ["environment", "kind"],
            registry=self._named,
        )
        self._local_kills = Counter(
            "flagd_local_kills",
            "Flags that a process took off by its own evidence.",
            ["environment"],
            registry=self._named,
        )
        self._kills = Counter(
            "flagd_kills",
            "Kills, by who pressed.",
            ["environment", "source"],
            registry=self._named,
        )
        self._kill_times = Histogram(
            "flagd_kill_confirmed_seconds",
            "From a kill's decision until so many percent of the processes had confirmed it.",
            ["environment", "percent"],
            buckets=_KILL_BUCKETS_S,
            registry=self._named,
        )
        Gauge(
            "flagd_build_info", "The running code.", ["version", "git_sha"], registry=self._registry
        ).labels(version, git_sha).set(1)
        of_releases = ReleaseMetrics(flag_counts, watch_states, releasing)
        self._registry.register(_Streams(hub_statistics))
        live, objectives = _Live(local_kills, unconfirmed), _Objectives(slo_states)
        self._named.register(_WhereReadable(of_releases, live, objectives))
        # Looking a label up costs more than counting. Routes and environments are few, so what is
        # kept is bounded; two threads that fill one entry at once store the same child.
        self._by_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._by_summary: dict[tuple[str, bool], tuple[Counter, Counter, Counter]] = {}

    def thread_begins(self) -> None:
        """Note that this thread is at a request."""
        self._busy.add(get_ident())

    def thread_ends(self) -> None:
        """Note that it is at none; the request may go on without a thread."""
        self._busy.discard(get_ident())

    def request_ends(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count a request that has been answered.

        Args:
            route: a template, never a path.
            method: one that the server knows, or one word for all others.
        """
        key = (route, method, status)
        children = self._by_request.get(key)
        if children is None:
            children = (
                self._requests.labels(route, method, str(status)),
                self._durations.labels(route, method, f"{status // 100}xx"),
            )
            self._by_request[key] = children
        children[0].inc()
        children[1].observe(duration_s)

    def time_storage(self, kind: str, outcome: str, duration_s: float) -> None:
        self._transactions.labels(kind, outcome).observe(duration_s)

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

    def count_local_kill(self, environment: str) -> None:
        self._local_kills.labels(environment).inc()

    def count_kill(self, environment: str, source: str) -> None:
        self._kills.labels(environment, source).inc()

    def time_kill(self, environment: str, percent: int, seconds: float) -> None:
        self._kill_times.labels(environment, str(percent)).observe(seconds)

    def exposition(self, waiting: int = 0, *, names_flags: bool = True) -> bytes:
        """Return everything in Prometheus' text format.

        Args:
            waiting: requests that wait for a thread.
            names_flags: with what names environments, flags or services.
        """
        self._waiting.set(waiting)
        of_server = generate_latest(self._registry)
        if not names_flags:
            return of_server
        of_flags = generate_latest(self._named)
        return of_server + of_flags + exposure_metrics.exposition(self._exposures())


class _Streams(Collector):
    """What the hub counts, read at the scrape."""

    def __init__(self, hub_statistics: Callable[[], HubStatistics]) -> None:
        self._hub_statistics = hub_statistics

    def collect(self) -> Iterator[Metric]:
        streams = self._hub_statistics()
        yield GaugeMetricFamily("flagd_streams_open", "Open streams.", streams.streams)
        yield CounterMetricFamily(
            "flagd_stream_events_published",
            "Events published, each to SDKs and to OFREP clients.",
            streams.published,
        )
        yield CounterMetricFamily("flagd_streams_cut", "Streams cut as too slow.", streams.cut)


class _WhereReadable(Collector):
    """Collectors that read the database; while it is away the others are what is looked for."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        unread = 0
        for collector in self._collectors:
            try:
                yield from list(collector.collect())
            except StorageError:
                unread += 1
        yield GaugeMetricFamily(
            "flagd_metrics_unread",
            "Groups of series that this scrape lacks, as the database could not be read.",
            unread,
        )


class _Live(Collector):
    """What others know of flags that are off, read at the scrape."""

    def __init__(
        self,
        local_kills: Callable[[], Mapping[str, int]],
        unconfirmed: Callable[[], Mapping[str, int]],
    ) -> None:
        self._local_kills = local_kills
        self._unconfirmed = unconfirmed

    def collect(self) -> Iterator[Metric]:
        held_off = GaugeMetricFamily(
            "flagd_local_kills_standing",
            "Flags off by a process's own evidence, each counted in each process.",
            labels=["environment"],
        )
        for environment, count in self._local_kills().items():
            held_off.add_metric([environment], count)
        yield held_off
        lagging = GaugeMetricFamily(
            "flagd_kill_processes_unconfirmed",
            "Processes that are there and have not confirmed a kill.",
            labels=["environment"],
        )
        for environment, count in self._unconfirmed().items():
            lagging.add_metric([environment], count)
        yield lagging


class _Pools(Collector):
    """Connections to the database, where there is a pool of them."""

    def __init__(self, pools: Callable[[], Mapping[str, PoolUse]]) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        described = {
            "size": "Connections that the pool has.",
            "limit": "Connections that it may have.",
            "lent": "Connections that are in use.",
            "waiting": "Threads that wait for a connection.",
        }
        use = self._pools()
        for name, text in described.items():
            metric = GaugeMetricFamily(f"flagd_pool_{name}", text, labels=["pool"])
            for pool, each in use.items():
                metric.add_metric([pool], getattr(each, name))
            yield metric


class _Objectives(Collector):
    """How services stand to what they are held to. What is not known has no series."""

    def __init__(self, slo_states: Callable[[], Sequence[SloState]]) -> None:
        self._slo_states = slo_states

    def collect(self) -> Iterator[Metric]:
        labels = ["environment", "service", "objective"]
        target = GaugeMetricFamily(
            "flagd_slo_objective_ratio", "The share that has to be good.", labels=labels
        )
        left = GaugeMetricFamily(
            "flagd_slo_error_budget_left_ratio",
            "Share of the error budget that is left; below 0 where more is spent.",
            labels=labels,
        )
        burn = GaugeMetricFamily(
            "flagd_slo_burn_rate",
            "How many times faster than the objective allows the budget burns.",
            labels=[*labels, "window"],
        )
        alerts = GaugeMetricFamily(
            "flagd_slo_alert",
            "1 where the budget burns so fast that a person is to be told.",
            labels=[*labels, "severity"],
        )
        for state in self._slo_states():
            for objective in state.objectives:
                names = [state.environment, state.service, objective.name]
                target.add_metric(names, objective.target)
                if objective.budget_left is not None:
                    left.add_metric(names, objective.budget_left)
                for window in BURN_WINDOWS:
                    rate = objective.burn(window)
                    if rate is not None:
                        burn.add_metric([*names, window], rate)
                for severity in ("page", "ticket"):
                    alerts.add_metric([*names, severity], objective.alert == severity)
        yield from (target, left, burn, alerts)
