"""What others answer, from bytes to facts."""

import json
import math
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_server.domain.answers import (
    Alerts,
    HealthAnswer,
    Kind,
    Sample,
    Samples,
    Unknown,
    alertmanager_question,
    finite,
    prometheus_question,
    read_answer,
)


def prometheus(data: Any, **more: Any) -> Any:
    return read_answer(
        "prometheus", 200, json.dumps({"status": "success", "data": data, **more}).encode()
    )


def vector(*values: str) -> dict[str, Any]:
    rows = [{"metric": {"n": str(n)}, "value": [1.5, value]} for n, value in enumerate(values)]
    return {"resultType": "vector", "result": rows}


def alert(name: str, state: str) -> dict[str, Any]:
    return {"labels": {"alertname": name}, "status": {"state": state}}


def test_a_query_is_asked_of_the_api_below_the_url() -> None:
    query = 'sum(rate(x{code=~"5..", path!="/a&b"}[5m])) / 2 + 1'
    for url in ("http://prom:9090", "http://prom:9090/"):
        parts = urlsplit(prometheus_question(url, query).url)
        assert (parts.netloc, parts.path) == ("prom:9090", "/api/v1/query")
        assert parse_qs(parts.query) == {"query": [query]}
    assert urlsplit(prometheus_question("http://x/prom/", "up").url).path == "/prom/api/v1/query"


def test_every_matcher_is_a_filter() -> None:
    matchers = ['service="shop"', 'severity=~"page|ticket"', 'team!="a&b"']
    parts = urlsplit(alertmanager_question("http://am:9093/", matchers).url)
    assert parts.path == "/api/v2/alerts"
    assert parse_qs(parts.query) == {"filter": matchers}


def test_a_health_check_says_its_status() -> None:
    assert read_answer("health", 503, b"\xff") == HealthAnswer(503)


def test_samples_are_read_from_vectors_and_scalars() -> None:
    row = {"metric": {"__name__": "up", "b": "2", "a": "1"}, "value": [1.5, "0.25"]}
    found = prometheus({"resultType": "vector", "result": [row]})
    assert found == Samples((Sample('up{a="1", b="2"}', 0.25),))
    assert prometheus({"resultType": "scalar", "result": [1.5, "7"]}) == Samples((Sample("", 7),))
    assert prometheus({"resultType": "vector", "result": []}) == Samples(())


def test_what_is_no_number_is_kept_and_known_for_what_it_is() -> None:
    found = prometheus(vector("NaN", "+Inf", "-Inf", "1e3"))
    assert math.isnan(found.items[0].value)
    assert [sample.value for sample in finite(found)] == [1_000]


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (400, b'{"status": "error", "error": "parse error: x"}', "status 400: parse error: x"),
        (503, b"<html>", "status 503"),
        (302, b"", "status 302"),
        (204, b"", "status 204"),
        (200, b"", "no JSON"),
        (200, b"<html>", "no JSON"),
        (200, b"\xff\xfe", "no JSON"),
        (200, b"[" * 100_000, "no JSON"),
        (200, b"[]", "not of the form"),
        (200, b"null", "not of the form"),
        (200, b'{"status": "error", "error": "timeout"}', "could not answer: timeout"),
        (200, b'{"status": "success"}', "not of the form"),
        (200, b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', "matrix"),
        (200, b'{"status": "success", "data": {"resultType": "string"}}', "not of the form"),
        (
            200,
            b'{"status": "success", "data": {"resultType": "scalar", "result": [1, 2]}}',
            "not of the form",
        ),
        (
            200,
            b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "x"]}}',
            "not of the form",
        ),
    ],
)
def test_what_is_no_answer_of_prometheus_is_unknown(status: int, body: bytes, detail: str) -> None:
    answer = read_answer("prometheus", status, body)
    assert isinstance(answer, Unknown)
    assert detail in answer.detail


def test_an_answer_in_part_is_none() -> None:
    answer = prometheus(vector("1"), warnings=["a store is down"])
    assert answer == Unknown("Prometheus answered in part only: a store is down")


def test_suppressed_alerts_do_not_fire_and_unprocessed_ones_do() -> None:
    alerts = [alert("A", "suppressed"), alert("B", "active"), alert("C", "unprocessed")]
    body = json.dumps([*alerts, alert("B", "active")]).encode()
    assert read_answer("alertmanager", 200, body) == Alerts(("B", "C"), 3)
    assert read_answer("alertmanager", 200, b"[]") == Alerts((), 0)
    many = json.dumps([alert(f"A{n}", "active") for n in range(9)]).encode()
    assert read_answer("alertmanager", 200, many) == Alerts(("A0", "A1", "A2", "A3", "A4"), 9)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"null",
        b"[1]",
        b"[{}]",
        b'[{"labels": {"alertname": "A"}}]',
        b'[{"labels": {}, "status": {"state": "active"}}]',
        b'[{"labels": {"alertname": "A"}, "status": {"state": "on holiday"}}]',
        b'[{"labels": {"alertname": "A"}, "status": {"state": null}}]',
    ],
)
def test_alerts_of_another_form_are_unknown(body: bytes) -> None:
    assert isinstance(read_answer("alertmanager", 200, body), Unknown)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["status", "data", "resultType", "result", "metric", "value", "labels"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["health", "prometheus", "alertmanager"]), st.integers(100, 599), JSON)
def test_no_answer_is_too_strange_to_be_read(kind: Kind, status: int, document: Any) -> None:
    assert read_answer(kind, status, json.dumps(document).encode()) is not None


@given(st.sampled_from(["prometheus", "alertmanager"]), st.binary(max_size=50))
def test_any_bytes_are_read(kind: Kind, body: bytes) -> None:
    answer = read_answer(kind, 200, body)
    assert isinstance(answer, Unknown) or body.strip() == b"[]"
