"""`python -m tests.fuzz.propagation --examples 3000`: the state machine, at length."""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.propagation.machine import Propagation
from tests.fuzz.propagation.template import Template


def main() -> None:
    """Run it; an example that breaks a rule is shown, shrunk, and ends the run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.propagation", description=__doc__)
    parser.add_argument("--examples", type=int, default=3_000)
    parser.add_argument("--steps", type=int, default=40, help="of an example, at most")
    parser.add_argument("--seed", type=int, help="of an earlier run, to repeat it")
    parser.add_argument("--shrink", action="store_true", help="look for the shortest example")
    arguments = parser.parse_args()
    number = time.time_ns() % 2**32 if arguments.seed is None else arguments.seed
    sys.stderr.write(f"seed {number}\n")
    logging.disable(logging.CRITICAL)  # what it says of lines that break fills the screen
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    run = 0
    steps = 0

    class Counted(Propagation):
        def teardown(self) -> None:
            nonlocal run
            super().teardown()
            run += 1
            sys.stderr.write(f"\r{run:,} of {arguments.examples:,} examples, {steps:,} steps ")

        def check_invariants(self, *args: object, **kwargs: object) -> None:
            nonlocal steps
            steps += 1
            super().check_invariants(*args, **kwargs)

    # In memory: what is held here is the order of things, not the disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        Propagation.template = Template(Path(folder))
        machine = seed(number)(Counted)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=arguments.examples,
                stateful_step_count=arguments.steps,
                phases=[Phase.generate, *([Phase.shrink] if arguments.shrink else [])],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    print(f"\n{run:,} examples, {steps:,} steps in {took_s:.0f} s ({cpu_s:.0f} s of CPU): all held")


if __name__ == "__main__":
    main()
