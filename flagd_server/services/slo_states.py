"""How services stand to their objectives, by what was counted here or by what Prometheus says."""

from collections.abc import Iterable, Mapping

from flagd_server.clock import Clock
from flagd_server.domain.answers import (
    Answer,
    Question,
    Samples,
    Unknown,
    finite,
    prometheus_question,
)
from flagd_server.domain.objectives import (
    BUDGET,
    BURN_WINDOWS,
    NOTHING,
    WINDOW_PLACEHOLDER,
    Counted,
    ObjectiveState,
    PrometheusSource,
    SloState,
)
from flagd_server.errors import NotFoundError
from flagd_server.services.asking import Answering
from flagd_server.services.lookups import require_environment
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.records import Slo

_DAY_MINUTES = 24 * 60


class SloStates:
    def __init__(self, storage: Storage, answering: Answering, clock: Clock) -> None:
        self._storage = storage
        self._answering = answering
        self._clock = clock

    def get(self, environment: str, service: str) -> SloState:
        """Return the state, by what is known now, or raise NotFoundError."""
        with self._storage.read() as reader:
            return self.of(reader, self._require(reader, environment, service))

    def questions(self, environment: str, service: str) -> list[Question]:
        """Return what has to be asked of others for the state, or raise NotFoundError."""
        with self._storage.read() as reader:
            return self.questions_of(self._require(reader, environment, service))

    def questions_of(self, slo: Slo) -> list[Question]:
        return [] if slo.source is None else list(_questions(slo, slo.source).values())

    def all(self) -> list[SloState]:
        """Return the state of every service that has an objective."""
        with self._storage.read() as reader:
            return [
                self.of(reader, slo)
                for environment in reader.environments()
                for slo in reader.slos(environment.key)
            ]

    def of(self, reader: Reader, slo: Slo) -> SloState:
        """Return the state of one objective. Asks nobody, and never blocks."""
        if slo.source is None:
            return self._counted(reader, slo)
        return self._asked(slo, slo.source)

    def _require(self, reader: Reader, environment: str, service: str) -> Slo:
        slo = reader.slo(environment, service)
        if slo is None:
            require_environment(reader, environment)
            raise NotFoundError("slo", service)
        return slo

    def _counted(self, reader: Reader, slo: Slo) -> SloState:
        minute = int(self._clock.now().timestamp() // 60)
        failing: dict[str, Counted] = {}
        slow: dict[str, Counted] = {}
        requests = 0
        for window, minutes in _windows_min(slo).items():
            sums = reader.service_sums(
                slo.environment, slo.service, minute - minutes + 1, by_hour=minutes > _DAY_MINUTES
            )
            failing[window] = Counted.of(sums.exposures, sums.errors)
            slow[window] = Counted.of(sums.measured, sums.slow)
            requests = sums.requests
        return SloState(
            slo.environment,
            slo.service,
            slo.window_days,
            "exposures",
            tuple(_states(slo, failing, slow)),
            requests,
        )

    def _asked(self, slo: Slo, source: PrometheusSource) -> SloState:
        failing = dict.fromkeys((*BURN_WINDOWS, BUDGET), NOTHING)
        slow = dict(failing)
        faults: dict[str, None] = {}
        for (what, window), question in _questions(slo, source).items():
            share = _share(self._answering.ask(question))
            if isinstance(share, str):
                faults[f"{what} over {_name(slo, window)}: {share}"] = None
            else:
                (failing if what == "failing" else slow)[window] = Counted(share)
        return SloState(
            slo.environment,
            slo.service,
            slo.window_days,
            "prometheus",
            tuple(_states(slo, failing, slow)),
            faults=tuple(faults),
        )


def _states(
    slo: Slo, failing: Mapping[str, Counted], slow: Mapping[str, Counted]
) -> Iterable[ObjectiveState]:
    yield ObjectiveState("availability", slo.availability, failing)
    if slo.latency is not None:
        yield ObjectiveState("latency", slo.latency.share, slow)


def _windows_min(slo: Slo) -> dict[str, int]:
    """Return minutes by window, the budget's last."""
    windows = {window: seconds // 60 for window, seconds in BURN_WINDOWS.items()}
    return windows | {BUDGET: slo.window_days * _DAY_MINUTES}


def _name(slo: Slo, window: str) -> str:
    return f"{slo.window_days}d" if window == BUDGET else window


def _questions(slo: Slo, source: PrometheusSource) -> dict[tuple[str, str], Question]:
    """Return one question for each query and window."""
    queries = {"failing": source.failing}
    if slo.latency is not None and source.slow is not None:
        queries["slow"] = source.slow
    return {
        (what, window): prometheus_question(
            source.url, query.replace(WINDOW_PLACEHOLDER, _name(slo, window))
        )
        for what, query in queries.items()
        for window in (*BURN_WINDOWS, BUDGET)
    }


def _share(answer: Answer | None) -> float | str:
    """Return the share of an answer, or why there is none."""
    if answer is None:
        return "Prometheus has not answered yet"
    if isinstance(answer, Unknown):
        return answer.detail
    assert isinstance(answer, Samples), "the question was one for Prometheus"
    if len(answer.items) != 1 or not finite(answer):
        values = ", ".join(str(sample.value) for sample in answer.items[:3]) or "nothing"
        return f"expected one number, got {values}"
    share = answer.items[0].value
    return share if 0.0 <= share <= 1.0 else f"expected a share from 0 to 1, got {share:g}"
