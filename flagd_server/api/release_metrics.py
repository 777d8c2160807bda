"""How releases stand: what the guard sees, what is killed, where rollouts are, who is not told."""

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flagd_server.domain.rollout import State
from flagd_server.services.guarding import WatchState
from flagd_server.services.overview import FlagCounts, Releasing

_T = TypeVar("_T")
_FLAG = ("environment", "flag")


class ReleaseMetrics(Collector):
    """Read at the scrape; the functions are called once each."""

    def __init__(
        self,
        flag_counts: Callable[[], Sequence[FlagCounts]],
        watch_states: Callable[[], Sequence[WatchState]],
        releasing: Callable[[], Releasing],
    ) -> None:
        self._flag_counts = flag_counts
        self._watch_states = watch_states
        self._releasing = releasing

    def collect(self) -> Iterator[Metric]:
        yield from _flags(self._flag_counts())
        yield from _guards(self._watch_states())
        releasing = self._releasing()
        yield from _rollouts(releasing)
        yield from _webhooks(releasing)


def _flags(counts: Sequence[FlagCounts]) -> Iterator[Metric]:
    rows = [((each.environment,), each) for each in counts]
    yield _gauge("flagd_flags", "Flags delivered.", rows, lambda each: each.flags)
    yield _gauge("flagd_flags_enabled", "Flags on.", rows, lambda each: each.enabled)
    yield _gauge("flagd_flags_killed", "Flags killed.", rows, lambda each: len(each.killed))
    yield _gauge(
        "flagd_guard_brake_engaged",
        "1 where the guard kills nothing more until a person releases its brake.",
        rows,
        lambda each: each.is_braked,
    )
    killed = GaugeMetricFamily(
        "flagd_flag_killed", "1 for each flag that is killed.", labels=[*_FLAG, "source"]
    )
    for each in counts:
        for flag, source in each.killed.items():
            killed.add_metric([each.environment, flag, source], 1)
    yield killed


def _guards(states: Sequence[WatchState]) -> Iterator[Metric]:
    """Yield how the guard stands: silence is not health."""
    guarded: Counts[tuple[str, ...]] = Counts()
    held: Counts[tuple[str, ...]] = Counts()
    blind: Counts[tuple[str, ...]] = Counts()
    each_flag = GaugeMetricFamily(
        "flagd_guard_flag_state",
        "1 for the state in which the guard of a flag is: held, blind or seeing.",
        labels=[*_FLAG, "state"],
    )
    for state in states:
        guarded[(state.environment,)] += 1
        held[(state.environment,)] += state.is_held
        reasons = {each.reason for each in state.blind}
        blind.update((state.environment, reason) for reason in reasons)
        word = "held" if state.is_held else "blind" if reasons else "seeing"
        each_flag.add_metric([state.environment, state.flag, word], 1)
    yield _gauge("flagd_guard_flags", "Flags under guard.", guarded.items(), int)
    yield _gauge("flagd_guard_flags_held", "Flags that the guard holds back.", held.items(), int)
    yield _gauge(
        "flagd_guard_flags_blind",
        "Flags whose guard cannot see, by reason.",
        blind.items(),
        int,
        ("environment", "reason"),
    )
    yield each_flag


def _rollouts(releasing: Releasing) -> Iterator[Metric]:
    percent = GaugeMetricFamily(
        "flagd_rollout_percent", "The percentage at which a rollout is.", labels=_FLAG
    )
    states = GaugeMetricFamily(
        "flagd_rollout_state",
        "1 for the state in which a rollout that has not ended is.",
        labels=[*_FLAG, "state"],
    )
    waiting = GaugeMetricFamily(
        "flagd_rollout_waiting", "1 for each thing a rollout waits for.", labels=[*_FLAG, "what"]
    )
    for rollout in releasing.rollouts:
        names = [rollout.environment, rollout.flag]
        percent.add_metric(names, rollout.present.percent if rollout.present else 0)
        states.add_metric([*names, rollout.state.value], 1)
        if rollout.state is State.WAITING:
            for what in sorted({each.what for each in rollout.waiting_for}):
                waiting.add_metric([*names, what], 1)
    yield from (percent, states, waiting)


def _webhooks(releasing: Releasing) -> Iterator[Metric]:
    rows = [((each.environment, each.webhook), each) for each in releasing.pending]
    labels = ("environment", "webhook")
    yield _gauge(
        "flagd_webhook_messages_waiting",
        "Messages that a webhook has not been told.",
        rows,
        lambda each: each.waiting,
        labels,
    )
    yield _gauge(
        "flagd_webhook_attempts",
        "Attempts made with the oldest of them; it holds up the others.",
        rows,
        lambda each: each.attempts,
        labels,
    )


def _gauge(
    name: str,
    text: str,
    rows: Iterable[tuple[tuple[str, ...], _T]],
    value: Callable[[_T], float],
    labels: Sequence[str] = ("environment",),
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for names, row in rows:
        gauge.add_metric(names, value(row))
    return gauge
