"""Service level objectives: what each service of an environment is held to.

Applications never see them, so a change is written and audited, and announced to the guard alone.
"""

from flagd_server.domain.configuration import JsonObject
from flagd_server.domain.objectives import (
    DEFAULT_WINDOW_DAYS,
    LatencyObjective,
    PrometheusSource,
)
from flagd_server.errors import InvalidError, NotFoundError
from flagd_server.services.lookups import require_environment
from flagd_server.services.notices import Topic
from flagd_server.services.publishing import Publisher
from flagd_server.services.url_checks import UrlChecks
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.records import Slo


class Slos:
    """Lists and changes objectives."""

    def __init__(
        self,
        storage: Storage,
        publisher: Publisher,
        check_urls: UrlChecks = lambda urls: [],
    ) -> None:
        self._check_urls = check_urls
        self._storage = storage
        self._publisher = publisher

    def list(self, environment: str) -> list[Slo]:
        """Return all of the environment by service, or raise NotFoundError."""
        with self._storage.read() as reader:
            require_environment(reader, environment)
            return reader.slos(environment)

    def get(self, environment: str, service: str) -> Slo:
        """Return the service's, or raise NotFoundError."""
        with self._storage.read() as reader:
            return _require_slo(reader, environment, service)

    def put(
        self,
        environment: str,
        service: str,
        availability: float,
        *,
        latency: LatencyObjective | None = None,
        window_days: int = DEFAULT_WINDOW_DAYS,
        source: PrometheusSource | None = None,
        actor: str,
    ) -> Slo:
        """Create the objective (its version is 1) or replace it. The same again changes nothing.

        Args:
            service: as its applications report it; it need not have reported yet.
            availability: the share of exposures that must not fail.
            source: who is asked for the figures; None where they are counted here.

        Raises:
            NotFoundError: there is no such environment.
            InvalidError: the source can't be asked.
        """
        faults = [] if source is None else self._check_urls({"source.url": source.url})
        if faults:
            raise InvalidError(faults)
        with self._storage.transaction() as tx:
            require_environment(tx, environment)
            before = tx.slo(environment, service)
            slo = Slo(
                environment=environment,
                service=service,
                availability=availability,
                version=1 if before is None else before.version + 1,
                updated_at=self._publisher.clock.now(),
                latency=latency,
                window_days=window_days,
                source=source,
            )
            if before is not None and _content(before) == _content(slo):
                return before
            tx.put_slo(slo)
            if before is not None and _threshold_s(before) != _threshold_s(slo):
                tx.forget_service_latencies(environment, service)
            tx.announce(Topic.OBJECTIVES, {"environment": environment})
            self._publisher.record(
                tx,
                actor=actor,
                action="slo.create" if before is None else "slo.update",
                target=_target(environment, service),
                environment=environment,
                before_version=None if before is None else before.version,
                after_version=slo.version,
                detail={
                    "before": None if before is None else _content(before),
                    "after": _content(slo),
                },
            )
            return slo

    def delete(self, environment: str, service: str, *, actor: str) -> None:
        """Hold the service to nothing, or raise NotFoundError."""
        with self._storage.transaction() as tx:
            slo = _require_slo(tx, environment, service)
            tx.delete_slo(environment, service)
            tx.announce(Topic.OBJECTIVES, {"environment": environment})
            self._publisher.record(
                tx,
                actor=actor,
                action="slo.delete",
                target=_target(environment, service),
                environment=environment,
                before_version=slo.version,
                detail={"before": _content(slo), "after": None},
            )


def _require_slo(reader: Reader, environment: str, service: str) -> Slo:
    slo = reader.slo(environment, service)
    if slo is None:
        require_environment(reader, environment)
        raise NotFoundError("slo", service)
    return slo


def _target(environment: str, service: str) -> str:
    return f"environments/{environment}/slos/{service}"


def _content(slo: Slo) -> JsonObject:
    """Return what people set, as they set it."""
    return {
        "availability": slo.availability,
        "latency": None if slo.latency is None else slo.latency.to_document(),
        "window_days": slo.window_days,
        "source": None if slo.source is None else slo.source.to_document(),
    }


def _threshold_s(slo: Slo) -> float | None:
    return None if slo.latency is None else slo.latency.threshold_s
