"""A gate of every check, and facts to judge it by."""

from datetime import UTC, datetime, timedelta

from flagd_server.domain.answers import Alerts, HealthAnswer, Sample, Samples
from flagd_server.domain.configuration import Kill, KillSource
from flagd_server.domain.gate_verdicts import Exposures, Facts, FlagGuard
from flagd_server.domain.gates import (
    AlertmanagerCheck,
    Approval,
    GateDefinition,
    GuardCheck,
    MinExposures,
    PrometheusCheck,
    SloCheck,
)
from flagd_server.domain.health import Health
from flagd_server.domain.objectives import (
    BUDGET,
    BURN_WINDOWS,
    NOTHING,
    Counted,
    ObjectiveState,
    SloState,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KILL = Kill("kill-1", NOW, "guard", KillSource.GUARD, "errors", "ev-1")
GOOD, BAD, DUNNO = Health.HEALTHY, Health.UNHEALTHY, Health.INCONCLUSIVE
NAN, INF = float("nan"), float("inf")


def samples(*values: float) -> Samples:
    return Samples(tuple(Sample(f"s{n}", value) for n, value in enumerate(values)))


def slo_state(target: float = 0.99, **windows: Counted) -> SloState:
    given = {name.removeprefix("w"): counted for name, counted in windows.items()}
    objective = ObjectiveState(
        "availability", target, dict.fromkeys((*BURN_WINDOWS, BUDGET), NOTHING) | given
    )
    return SloState("production", "shop", 30, "exposures", (objective,))


# A gate of every check, and facts under which each is healthy.
FULL = GateDefinition(
    "all of it",
    ("https://a/healthz", "https://b/healthz"),
    SloCheck("shop", 0.5, 6.0),
    (PrometheusCheck("http://p", "up", "lt", 0.5), PrometheusCheck("http://p", "x", "gte", 1)),
    AlertmanagerCheck("http://a", ('a="b"',)),
    GuardCheck(flags=("f", "g")),
    MinExposures("f", 100),
    approval=True,
)
HEALTHY = Facts(
    NOW,
    {
        "health_checks[0]": HealthAnswer(200),
        "health_checks[1]": HealthAnswer(200),
        "prometheus[0]": samples(0.1),
        "prometheus[1]": samples(1),
        "alertmanager": Alerts((), 0),
    },
    slo_state(budget=Counted.of(10_000, 10), w1h=Counted.of(10_000, 10), w5m=Counted.of(900, 1)),
    (FlagGuard("f", True), FlagGuard("g", True)),
    0,
    (),
    Exposures(100, 1),
    Approval("ann", NOW, NOW + timedelta(hours=1), "fine"),
)
