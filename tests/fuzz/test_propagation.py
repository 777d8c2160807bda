"""A short run of the state machine; the long one is `python -m tests.fuzz.propagation`."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.propagation.machine import Propagation
from tests.fuzz.propagation.template import Template

EXAMPLES = 10
STEPS = 25


@pytest.mark.timeout(300)
def test_processes_and_server_agree_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Propagation, "template", Template(tmp_path), raising=False)
    run_state_machine_as_test(
        Propagation,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            # What fails depends on threads too: a shorter example may not.
            phases=[Phase.generate],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
