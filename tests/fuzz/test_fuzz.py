"""A short run of the fuzzer, the same each time; the long one is `python -m tests.fuzz`."""

from pathlib import Path

import pytest

from tests.contract.openapi_contract import contract
from tests.fuzz.run import Fuzzing
from tests.fuzz.world import Template

SEED = 6
CASES_OF_EACH = 3


@pytest.mark.timeout(300)
def test_every_operation_answers_as_documented_whoever_asks_for_whatever(tmp_path: Path) -> None:
    cases = CASES_OF_EACH * len(contract().operations)
    report = Fuzzing(SEED, cases, lambda report: None).run(Template(tmp_path).copy)
    assert report.cases >= cases
    assert {operation for operation, _ in report.statuses} == {
        operation.name for operation in contract().operations
    }
    found = report.distinct()
    assert not found, "\n\n".join(
        f"{breach.operation}, {breach.caller}: {breach.what}\n{breach.shown}" for breach in found
    )
