import json
from typing import Any

import pytest

from flagd_server.domain.guard.records import (
    Cell,
    Event,
    Policy,
    RecordError,
    parse_event,
    parse_policy,
)

CELL: dict[str, Any] = {
    "split": "default",
    "variant": "on",
    "weights": {"on": 25_000, "off": 75_000},
    "config_version": 7,
    "service": "shop",
    "service_version": "3f2c1ab",
    "instance": "i1",
    "exposures": 950,
    "errors": 2,
    "units": {"error:KeyError": ["9f86d081884c7d65"], "exposed": []},
}


def event(**changes: Any) -> dict[str, Any]:
    return {"t": 120.0, "announced": None, "cells": [{**CELL, **changes}]}


def without(name: str) -> dict[str, Any]:
    return {"t": 120.0, "cells": [{key: value for key, value in CELL.items() if key != name}]}


def test_an_event_survives_the_way_to_json_and_back() -> None:
    parsed = parse_event(event())
    again = parse_event(json.loads(json.dumps(parsed.to_document())))
    assert again == parsed
    assert parsed.cells[0].units["error:KeyError"] == ("9f86d081884c7d65",)


def test_so_does_one_of_a_process_that_was_known_before() -> None:
    parsed = Event(1.0, (Cell("default", "on", {"on": 1}, 1, "i1", 1, 0, instance_since=0.5),))
    assert parse_event(json.loads(json.dumps(parsed.to_document()))) == parsed


def test_an_announcement_needs_no_cells() -> None:
    assert parse_event({"t": 1, "announced": "weights"}) == Event(1.0, (), "weights")


def test_a_cell_without_a_split_needs_no_weights() -> None:
    parsed = parse_event({"t": 1, "cells": [{**without("weights")["cells"][0], "split": None}]})
    assert parsed.cells[0].weights == {}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], r"event: expected an object, got \[\]"),
        ({}, "t: expected a finite number, got None"),
        ({"t": True}, "t: expected a finite number, got True"),
        ({"t": float("nan")}, "t: expected a finite number"),
        ({"t": 1e13}, "t: expected seconds between"),
        ({"t": 1, "announced": 3}, "announced: expected a string, got 3"),
        ({"t": 1, "cells": {}}, r"cells: expected a list, got \{\}"),
        ({"t": 1, "cells": [1]}, r"cells\[0\]: expected an object, got 1"),
        ({"t": 1, "sells": []}, "event: unknown field 'sells', expected .*'cells'"),
        (event(cost=1), r"cells\[0\]: unknown field 'cost'"),
        (event(split=1), r"cells\[0\]\.split: expected a string"),
        (event(variant=None), r"cells\[0\]\.variant: expected a string"),
        (without("weights"), r"cells\[0\]\.weights: expected the weights of split 'default'"),
        (event(weights=[]), r"cells\[0\]\.weights: expected an object"),
        (event(weights={"on": -1}), r"cells\[0\]\.weights\.on: expected a whole number"),
        (event(weights={"on": 0.5}), r"cells\[0\]\.weights\.on: expected a whole number"),
        (event(config_version="7"), r"cells\[0\]\.config_version: expected a whole number"),
        (without("instance"), r"cells\[0\]\.instance: expected a string, got None"),
        (without("exposures"), r"cells\[0\]\.exposures: expected a whole number"),
        (event(errors=True), r"cells\[0\]\.errors: expected a whole number"),
        (event(errors=951), r"cells\[0\]\.errors: expected at most exposures \(950\), got 951"),
        (event(units=[]), r"cells\[0\]\.units: expected an object"),
        (event(units={"error:A": "9f"}), r"cells\[0\]\.units\.error:A: expected a list of hashes"),
        (event(units={"error:A": ["9f"]}), "error:A: expected 16 lower-case hexadecimal digits"),
        (event(units={"error:A": ["9F86D081884C7D65"]}), "expected 16 lower-case hexadecimal"),
        (event(units={"error:A": [7]}), "expected 16 lower-case hexadecimal digits, got 7"),
        (event(service=1), r"cells\[0\]\.service: expected a string"),
        (event(service_version=1), r"cells\[0\]\.service_version: expected a string"),
        (event(instance_since="x"), r"cells\[0\]\.instance_since: expected a finite number"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_was_expected(
    document: object, message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        parse_event(document)


def test_a_policy_has_defaults() -> None:
    assert parse_policy({"config": {}}) == Policy(0.001, 1.05, None)
    assert parse_policy({"config": {"alpha": 0.01, "margin": 1, "control": "off"}}) == Policy(
        0.01, 1.0, "off"
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "first line: expected an object, got None"),
        ({"t": 1}, "config: expected an object, got None"),
        ({"config": {"alfa": 1}}, "config: unknown field 'alfa'"),
        ({"config": {"alpha": 0}}, r"config\.alpha: expected a number between 0 and 1, got 0\.0"),
        ({"config": {"alpha": "1"}}, r"config\.alpha: expected a finite number"),
        ({"config": {"margin": 0.9}}, r"config\.margin: expected a number from 1 to 10"),
        ({"config": {"control": 1}}, r"config\.control: expected a string"),
    ],
)
def test_a_policy_that_cannot_be_read_is_named_too(document: object, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse_policy(document)
