"""What the documents show of the API is what the contract allows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.contract.openapi_contract import contract

GATES = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")


def bodies() -> list[Any]:
    """Return the JSON bodies in the code of the document."""
    code = "\n".join(re.findall(r"```\w+\n(.*?)```", GATES, re.DOTALL))
    found = re.findall(r"'(\{.*?\})'$|<<'END'\n(.*?)\nEND$|^(\{.*?\}\})$", code, re.M | re.S)
    return [json.loads("".join(texts)) for texts in found]


@pytest.mark.parametrize(
    ("number", "name"), [(0, "put_slo"), (1, "put_slo"), (2, "put_gate")], ids=str
)
def test_a_body_in_the_documents_is_one_of_the_contract(number: int, name: str) -> None:
    (operation,) = (one for one in contract().operations if one.name == name)
    assert len(bodies()) == 3
    assert contract().faults(operation.body_pointer, bodies()[number]) == []
