"""Evidence documents of every sort, as the API gives them, for the tests of the page."""

from collections.abc import Sequence
from math import exp
from typing import Any

Json = dict[str, Any]
T0 = 1_795_744_800.0  # 27 November 2026, 02:00:00 UTC
BOOM = "error:PaymentError"


def comparison(tosses: str, *, kind: str = BOOM, **changes: Any) -> Json:
    """Return a comparison in which visitors failed as the letters say, one each second."""
    treated = tosses.count("T")
    rows = [
        {
            "t": T0 + 600.0 + k,
            "unit": f"{k:016x}",
            "kind": kind,
            "variant": "on" if letter == "T" else "off",
            "instance": "i-1",
        }
        for k, letter in enumerate(tosses)
    ]
    e_values = _path(tosses)
    found = {
        "metric": "errors",
        "split": "default",
        "treatment": arm("on", 2_310, 131, treated),
        "control": arm("off", 6_940, 201, len(tosses) - treated),
        "alpha": 0.0007,
        "stream": f"{kind}, life",
        "e_value": e_values[-1] if e_values else 1.0,
        "threshold": 9_523.8,
        "rate_witness": 4_100.0,
        "rate_witness_needed": 10.0,
        "held_back": None,
        "expected_share": 0.25,
        "chance": 0.25**treated if treated else 1.0,
        "ratio": 32.2,
        "ratio_interval": {"confidence": 0.95, "low": 4.7, "high": None},
        "streams": [
            stream(f"{kind}, life", treated, len(tosses) - treated),
            stream("errors, life", 14, 3, e_value=310.0, opened_at=T0),
            stream("errors, epoch 2 (weights)", 12, 1, e_value=88.0, threshold=57_142.0),
        ],
        "path": [
            {"t": row["t"], "e_value": value} for row, value in zip(rows, e_values, strict=True)
        ],
        "tosses": rows,
    }
    return {**found, **changes}


def _path(tosses: str) -> list[float]:
    """Return a score that a toss for the treatment raises and one for the control lowers."""
    height, path = 0.0, []
    for letter in tosses:
        height += 1.1 if letter == "T" else -0.3
        path.append(exp(height))
    return path


def arm(variant: str, exposures: int, errors: int, failing_units: int) -> Json:
    return {
        "variant": variant,
        "exposures": exposures,
        "errors": errors,
        "error_rate": errors / exposures,
        "failing_units": failing_units,
    }


def stream(name: str, treatment: int, control: int, **changes: Any) -> Json:
    found = {
        "name": name,
        "opened_at": T0 + 600.0,
        "alpha_share": 0.15,
        "e_value": 59_874.0,
        "threshold": 9_523.8,
        "rate_witness": 4_100.0,
        "treatment_units": treatment,
        "control_units": control,
    }
    return {**found, **changes}


def decision(**changes: Any) -> Json:
    found = {
        "t": T0 + 620.0,
        "kill": True,
        "hold": False,
        "e_value": 59_874.0,
        "rate_witness": 4_100.0,
        "threshold": 9_523.8,
        "stream": f"{BOOM}, life",
        "ratio": 32.2,
        "reason": "11 of 11 failing units with PaymentError had “on”, 25.0% expected by chance",
        "split": "default",
        "treatment": "on",
        "control": "off",
        "guard": "error_rate",
        "blind": [],
    }
    return {**found, **changes}


def state(comparisons: Sequence[Json], **changes: Any) -> Json:
    """Return what reports and the running state have in common."""
    found = {
        "environment": "production",
        "flag": "new-checkout",
        "life": 3,
        "decision": decision(),
        "policy": {
            "alpha": 0.001,
            "margin": 1.05,
            "control": None,
            "guards": ["error_rate", "latency", "availability"],
            "slow": ["p99"],
            "harm_budget": None,
            "on_burn": "hold",
        },
        "life_started_at": T0,
        "blind": [],
        "comparisons": list(comparisons),
        "sample_ratio": [],
        "set_aside": [],
        "harm": {"budget": None, "excess": 64.1},
        "versions": [],
    }
    return {**found, **changes}


def report(comparisons: Sequence[Json], **changes: Any) -> Json:
    """Return a report on a decision that killed the flag."""
    found = {
        "id": "ev-91b3c0d2a4e5f607",
        "at": "2026-11-27T02:10:20.125Z",
        "mode": "enforce",
        "action": "kill",
        "kill": {"id": "kill-1", "at": "2026-11-27T02:10:20.128Z"},
        "configuration": {
            "version": 5,
            "at": "2026-11-27T02:00:00.000Z",
            "actor": "ann",
            "action": "update",
        },
        **state(comparisons),
        "error_kinds": [
            error_kind("on", BOOM, 131, "PaymentError: the provider did not answer"),
            error_kind("off", "error:404", 201, "status 404"),
            error_kind("on", "error:404", 60, "status 404"),
        ],
        "notes": [],
    }
    return {**found, **changes}


def error_kind(variant: str, kind: str, count: int, sample: str) -> Json:
    where = "shop.payment:charge:38"
    return {"variant": variant, "kind": kind, "where": where, "count": count, "sample": sample}


def told(*, unconfirmed: Sequence[str] = ()) -> Json:
    document = {
        "processes": 200 + len(unconfirmed),
        "confirmed": 200,
        "unconfirmed": list(unconfirmed),
        "confirmed_after_ms": {"50": 4.2, "99": 8.6, "100": None if unconfirmed else 11.4},
        "steps": {
            "first_failure": "2026-11-27T02:10:00.000Z",
            "received": "2026-11-27T02:10:20.125Z",
            "decided": "2026-11-27T02:10:20.128Z",
            "committed": "2026-11-27T02:10:20.131Z",
            "sent": "2026-11-27T02:10:20.132Z",
            "last_confirmation": "2026-11-27T02:10:20.139Z",
        },
    }
    return {"kind": "told", "window_s": 0, "at": "2026-11-27T02:10:20.400Z", "document": document}


def aftermath(window_s: int, outcome: str, after: float) -> Json:
    document = {
        "outcome": outcome,
        "before": {"exposures": 9_250, "bad": 332, "share": 0.0359},
        "after": {"exposures": 1_850, "bad": round(1_850 * after), "share": after},
        "expected_share": 0.029,
        "ratio_interval": {"confidence": 0.99, "low": 0.6, "high": 0.9},
    }
    at = "2026-11-27T02:20:20.128Z"
    return {"kind": "aftermath", "window_s": window_s, "at": at, "document": document}


def version_verdict(verdict: str, version: str | None, reason: str) -> Json:
    return {
        "service": "shop",
        "verdict": verdict,
        "version": version,
        "reason": reason,
        "newer": "v42",
        "older": "v41",
        "versions": [],
        "flag_fixed": None,
        "flag_off": None,
        "pooled_exposures": 0,
    }


SLOW = comparison(
    "TTCTTTTTCTTTTTT",
    kind="slow:p99",
    metric="slow:p99",
    stream="slow:p99, life",
    treatment=arm("on", 2_310, 60, 13),
    control=arm("off", 6_940, 180, 2),
    chance=2.3e-5,
    ratio=13.5,
    ratio_interval={"confidence": 0.95, "low": 2.4, "high": 61.0},
    streams=[stream("slow:p99, life", 13, 2)],
)
QUIET = comparison(
    "CTCC",
    kind="error:404",
    stream="errors, life",
    e_value=0.6,
    ratio=1.2,
    chance=0.68,
    ratio_interval={"confidence": 0.95, "low": 0.0, "high": 21.0},
    held_back=None,
    treatment=arm("on", 2_310, 60, 1),
    control=arm("off", 6_940, 181, 3),
    streams=[stream("errors, life", 1, 3, e_value=0.6, opened_at=T0)],
)
NOBODY_SLOW = comparison("", metric="slow:p99", stream="slow:p99, life", streams=[])
_SLOW_DECISION = decision(stream="slow:p99, life", guard="latency")
_NO_DECISION = decision(kill=False, stream="errors, life", reason="1 of 4 failing units had “on”")

DOCUMENTS: dict[str, Json] = {
    "kill_for_errors": report(
        [comparison("T" * 11), {**SLOW, "e_value": 1.4}],
        versions=[
            version_verdict(
                "flag", None, "on v42 11 of 11 failing units had the feature, 25.0% expected"
            )
        ],
        notes=[told(), aftermath(120, "cannot tell", 0.033), aftermath(600, "fell", 0.0275)],
    ),
    "kill_for_latency": report(
        [SLOW, QUIET],
        decision=_SLOW_DECISION,
        error_kinds=[],
        harm={"budget": None, "excess": 0.2},
        notes=[told(unconfirmed=["i-7"]), aftermath(120, "did not fall", 0.036)],
    ),
    "kill_for_availability": report(
        [],
        decision=decision(
            guard="availability",
            stream="objective",
            e_value=41_000.0,
            threshold=1_000.0,
            split=None,
            treatment=None,
            control=None,
            reason="shop misses its objective of 99.9% since 4 minutes after a change of the flag",
        ),
        availability=[
            {
                "service": "shop",
                "objective": 0.999,
                "exposures": 12_000,
                "errors": 290,
                "missed_e_value": 41_000.0,
                "fast_burn_e_value": 310.0,
            }
        ],
        blind=[{"reason": "no control", "detail": "everybody is served the same variant"}],
    ),
    "kill_by_harm_budget": report(
        [{**QUIET, "treatment": arm("on", 2_310, 112, 1)}],
        decision=decision(guard="harm_budget", stream="errors, life"),
        harm={"budget": 50, "excess": 51.8},
        set_aside=[
            {
                "t": T0 + 60,
                "who": "process",
                "name": "i-9",
                "metric": "errors",
                "units": 1_000_000,
                "exposures": 1_000,
                "reason": "out of proportion",
            }
        ],
    ),
    "rolled_back": report(
        [comparison("T" * 11)],
        action="rollback",
        kill=None,
        rollback={
            "at": "2026-11-27T02:10:20.128Z",
            "from_version": 5,
            "to_version": 4,
            "version": 6,
            "split": "default",
            "variant": "on",
            "from_percent": 25.0,
            "to_percent": 5.0,
        },
        notes=[told(), aftermath(120, "did not fall", 0.033)],
    ),
    "killed_after_a_rollback": report(
        [comparison("T" * 11)],
        rollback=None,
        not_rolled_back="this is the configuration that the guard had gone back to",
    ),
    "braked": report([comparison("T" * 11)], action="braked", kill=None),
    "deferred": report(
        [comparison("T" * 11)],
        action="deferred",
        kill=None,
        shared_salt={
            "flags": ["new-checkout", "new-basket"],
            "goes_first": "new-basket",
            "decided_on": None,
        },
    ),
    "observed": report([comparison("T" * 11)], action="none", mode="observe", kill=None),
    "running": {
        **state([QUIET, NOBODY_SLOW]),
        "decision": _NO_DECISION,
        "configuration_version": 5,
        "harm": {"budget": 500, "excess": 0.0},
    },
    "running_held": {
        **state(
            [comparison("T" * 11, held_back="without process i-1 the evidence is only 2.1")],
            decision=decision(kill=False, hold=True),
        ),
        "configuration_version": 5,
    },
    "running_blind": {
        **state([], decision=decision(kill=False, treatment=None, control=None, split=None)),
        "blind": [{"reason": "no summaries", "detail": "nobody has reported for 60 seconds"}],
        "configuration_version": 5,
    },
    "version_at_fault": {
        **state(
            [QUIET],
            decision=_NO_DECISION,
            versions=[
                version_verdict(
                    "version",
                    "v42",
                    "with the flag off v42 fails 5.1 times as often as v41 (at 95%, 3.9 to 6.8)",
                )
            ],
            harm={"budget": None, "excess": 0.0},
        ),
        "configuration_version": 5,
    },
}


def old_report() -> Json:
    """Return a report as the first release wrote it: fewer keys, and nothing became known since."""
    document = report([comparison("T" * 11)])
    for name in ("blind", "sample_ratio", "set_aside", "harm", "versions", "notes"):
        del document[name]
    for name in ("guard", "blind"):
        del document["decision"][name]
    for name in ("metric", "rate_witness_needed"):
        del document["comparisons"][0][name]
    document["policy"] = {"alpha": 0.001, "margin": 1.05, "control": None}
    return document


DOCUMENTS["first_release"] = old_report()
