"""Summaries that one server keeps for another."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from flagd_sdk.core.local_kill import Evidence, LocalKill
from flagd_server.domain.faults import Fault
from flagd_server.domain.summary_documents import parse_summary, summary_document
from flagd_server.domain.telemetry import Cell, ErrorKind, Summary

SUMMARY = Summary(
    instance="i-1",
    sequence=7,
    service="shop",
    service_version="v1",
    applied_sequence=1_700_000_000_000,
    started_at=datetime(2026, 11, 23, 12, 0, 0, 123_000, tzinfo=UTC),
    ended_at=datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC),
    cells=(
        Cell("f", None, "on", 3, 10, 2, {5: 7, 100: 3}, {"error:E": ("0" * 16, "f" * 16)}),
        None,
        Cell("g", "default", "off", 1, 0, 0, {}, {}),
    ),
    unscoped={"f": 3},
    error_kinds=(None, ErrorKind("f", "on", "error:E", "shop:pay", 2, "Zürich \u2028")),
    dropped={"units": 1},
    local_kills=(
        LocalKill(
            "lk-1",
            "2026-11-23T12:00:00.000Z",
            Evidence("f", 3, "default", "on", "off", "error:E", 12.5, 11.5, 12, 0, 0.25),
        ),
        None,
    ),
)


def test_a_summary_comes_back_as_it_was() -> None:
    assert parse_summary(json.loads(json.dumps(summary_document(SUMMARY)))) == SUMMARY


def test_what_was_refused_was_told_and_is_not_kept() -> None:
    refused = replace(SUMMARY, refused=(Fault("cells[1].flag", "is wrong"),))
    assert parse_summary(summary_document(refused)) == SUMMARY


def test_another_form_is_no_summary() -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        parse_summary({"instance": "i-1"})
