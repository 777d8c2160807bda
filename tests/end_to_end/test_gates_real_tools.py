"""Gates and objectives against a real Prometheus and a real Alertmanager.

The whole circle: what an application reports shows in `/metrics`, Prometheus scrapes it and raises
an alert, Alertmanager holds it, and the gate hears of it from both. They are Debian's `prometheus`
and `prometheus-alertmanager`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S
from tests.end_to_end.real_tools import running_alertmanager, running_prometheus
from tests.end_to_end.telemetry import cell, summary
from tests.waiting import eventually

GATE = "/api/v1/environments/production/gates/canary"
SLO = "/api/v1/environments/production/slos/shop"
LEFT = 'flagd_slo_error_budget_left_ratio{service="shop",objective="availability"}'
RULES = """
groups:
  - name: slo
    interval: 1s
    rules:
      - alert: BudgetBurns
        expr: flagd_slo_alert{severity="page"} == 1
"""
CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: flagd
    authorization: {{credentials: {token}}}
    static_configs: [{{targets: ['{flagd}']}}]
alerting:
  alertmanagers:
    - static_configs: [{{targets: ['{alertmanager}']}}]
"""
_STEPS = count(1)
ALERTMANAGER = "{route: {receiver: nobody}, receivers: [{name: nobody}]}"


@dataclass(frozen=True)
class Tools:
    server: FlagServer
    prometheus: str
    alertmanager: str
    stop_prometheus: Callable[[], object]


@pytest.fixture
def tools(tmp_path: Path, start_server: Callable[..., FlagServer]) -> Iterator[Tools]:
    server = start_server(FLAGD_OUTGOING_ALLOW="127.0.0.1")
    (tmp_path / "rules.yml").write_text(RULES)
    with running_alertmanager(tmp_path, ALERTMANAGER) as alertmanager:
        configuration = CONFIGURATION.format(
            rules=tmp_path / "rules.yml",
            flagd=server.url.removeprefix("http://"),
            token=server.admin_token,
            alertmanager=alertmanager,
        )
        with running_prometheus(tmp_path, configuration) as (prometheus, stop):
            yield Tools(server, prometheus, f"http://{alertmanager}", stop)


def report(server: FlagServer, sequence: int, exposures: int, errors: int) -> None:
    cells = [cell("new-checkout", "on", 2, exposures=exposures, errors=errors)]
    token = server.sdk_tokens["production"]
    answer = server.call("POST", "/sdk/v1/telemetry", summary(sequence, cells), token=token)
    assert answer.json()["accepted"] == 1, answer.text


def verdict(tools: Tools) -> tuple[str, dict[str, tuple[str, str]]]:
    """Ask until a tool has not been too slow to answer: the machine may pause."""
    return eventually(
        lambda: (
            (answer := _verdict(tools, next(_STEPS)))
            and not any("gave no answer within" in detail for _, detail in answer[1].values())
            and answer
        ),
        within_s=2 * DEADLINE_S,
    )


def _verdict(tools: Tools, step: int) -> tuple[str, dict[str, tuple[str, str]]]:
    """Ask a gate whose questions nobody has asked before, so that each answer is a new one."""
    gate = {
        "slo": {"service": "shop", "error_budget_left_at_least": 0.5},
        "prometheus": [
            {
                "url": tools.prometheus,
                "query": f"{LEFT} + 0 * {step}",
                "op": "gte",
                "threshold": 0.5,
            }
        ],
        "alertmanager": {
            "url": tools.alertmanager,
            "matchers": ['service="shop"', f'alertname=~"BudgetBurns|{step}"'],
        },
    }
    assert tools.server.call("PUT", GATE, gate).status_code in (200, 201)
    answer = tools.server.call("GET", f"{GATE}/verdict").json()
    reasons = {row["check"]: (row["verdict"], row["detail"]) for row in answer["reasons"]}
    return answer["verdict"], reasons


def test_a_burning_budget_closes_the_gate_by_way_of_both_tools(tools: Tools) -> None:
    server = tools.server
    server.create_flag(
        "new-checkout", default_serve={"split": {"weights": {"on": 25_000, "off": 75_000}}}
    )
    server.call("PUT", SLO, {"availability": 0.99})

    def left() -> list[Any]:
        url = f"{tools.prometheus}/api/v1/query"
        found = requests.get(url, {"query": LEFT}, timeout=DEADLINE_S).json()
        return list(found["data"]["result"])

    word, reasons = verdict(tools)
    assert word == "inconclusive"
    assert reasons["prometheus[0]"][0] == "inconclusive"
    assert "gives nothing" in reasons["prometheus[0]"][1]

    report(server, 1, exposures=5_000, errors=0)
    eventually(left)
    word, reasons = verdict(tools)
    assert word == "healthy", reasons
    assert reasons["slo"] == (
        "healthy",
        "availability of shop: 100.0% of the error budget is left",
    )

    report(server, 2, exposures=5_000, errors=2_000)

    def firing() -> list[Any]:
        url = f"{tools.alertmanager}/api/v2/alerts"
        return list(requests.get(url, timeout=DEADLINE_S).json())

    (alert,) = eventually(firing)
    assert alert["labels"]["service"] == "shop"
    word, reasons = verdict(tools)
    assert word == "unhealthy"
    assert [row[0] for row in reasons.values()] == ["unhealthy"] * 3, reasons
    assert reasons["alertmanager"][1].endswith("BudgetBurns")
    assert "expected ≥ 0.5" in reasons["prometheus[0]"][1]

    now = datetime.now(UTC)
    silence = {
        "matchers": [{"name": "service", "value": "shop", "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "a test",
        "comment": "known",
    }
    requests.post(
        f"{tools.alertmanager}/api/v2/silences", json=silence, timeout=DEADLINE_S
    ).raise_for_status()
    eventually(lambda: firing()[0]["status"]["state"] == "suppressed")
    word, reasons = verdict(tools)
    assert (word, reasons["alertmanager"][0]) == ("unhealthy", "healthy")

    tools.stop_prometheus()
    word, reasons = verdict(tools)
    assert word == "unhealthy"  # the error budget is known here
    assert reasons["prometheus[0]"][0] == "inconclusive"
    assert "refused" in reasons["prometheus[0]"][1]


def test_prometheus_counts_for_an_objective(tools: Tools) -> None:
    server = tools.server
    up = f"{tools.prometheus}/api/v1/query"

    def is_scraped() -> bool:
        found = requests.get(up, {"query": "up"}, timeout=DEADLINE_S).json()["data"]["result"]
        return [row["value"][1] for row in found] == ["1"]

    eventually(is_scraped)

    def state(availability: float, failing: str) -> Any:
        source = {"url": tools.prometheus, "failing": failing}
        body = {"availability": availability, "source": source}
        assert server.call("PUT", SLO, body).status_code in (200, 201)
        return server.call("GET", f"{SLO}/state").json()

    # Not of how often it was up: a scrape may have taken too long.
    found = state(0.9, 'sum(0 * count_over_time(up{job="flagd"}[$window])) + 0.05')
    (objective,) = found["objectives"]
    assert found["faults"] == []
    assert objective["error_budget_left"] == pytest.approx(0.5)
    assert list(objective["burn_rates"].values()) == pytest.approx([0.5] * 7)

    nothing = state(0.9, "sum(rate(nobody_has_this[$window]))")
    assert nothing["objectives"][0]["error_budget_left"] is None
    assert "expected one number, got nothing" in nothing["faults"][0]

    wrong = state(0.9, "sum(rate(up[$window])")
    assert wrong["objectives"][0]["error_budget_left"] is None
    assert "status 400" in wrong["faults"][0]
    assert "parse error" in wrong["faults"][0]
