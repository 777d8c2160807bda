"""Every operation of `openapi.yaml`, with good and bad data, by each kind of caller."""

import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisDeprecationWarning, Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation

from tests.contract.openapi_contract import Operation, contract
from tests.fuzz.aiming import Aim, learn
from tests.fuzz.calls import Sender
from tests.fuzz.checks import breaches
from tests.fuzz.world import ErrorLog, World, tell_json

# Cases of one operation in a row; the operations take turns, so that one finds what others made.
_ROUND = 25
Opened = Callable[[], AbstractContextManager[tuple[World, Sender]]]


@dataclass(frozen=True)
class Breach:
    """What was wrong, with the request that shows it."""

    operation: str
    caller: str
    what: str
    shown: str

    @property
    def kind(self) -> tuple[str, str]:
        """Equal for what is likely the same fault."""
        return self.operation, self.what[:60]


@dataclass
class Report:
    """`statuses`: (operation, status) → cases; `callers` and `modes` likewise."""

    cases: int = 0
    unsendable: int = 0
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    callers: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    breaches: list[Breach] = field(default_factory=list)
    slowest_s: dict[str, float] = field(default_factory=dict)

    def distinct(self) -> list[Breach]:
        """Return one breach of each kind."""
        return list({breach.kind: breach for breach in reversed(self.breaches)}.values())

    def table(self) -> str:
        """Return the cases by operation and status."""
        lines = []
        for name in sorted({operation for operation, _ in self.statuses}):
            found = sorted((s, n) for (each, s), n in self.statuses.items() if each == name)
            counts = "  ".join(f"{status}: {count}" for status, count in found)
            lines.append(f"{name:<26} {self.slowest_s[name] * 1000:>6.0f} ms at most  {counts}")
        return "\n".join(lines)


class Fuzzing:
    """Runs cases and keeps what comes of them."""

    def __init__(self, number: int, cases: int, on_case: Callable[[Report], None]) -> None:
        self._number = number
        self._on_case = on_case
        self._goal = cases
        self._operations = {operation.name: operation for operation in contract().operations}
        found = schemathesis.openapi.from_dict(dict(contract().document)).get_all_operations()
        self._generated: list[APIOperation[Any, Any, Any, Any]] = [each.ok() for each in found]
        self._log = ErrorLog()
        self.report = Report()

    def run(self, opened: Opened) -> Report:
        """Fuzz until there were so many cases, each round on a fresh world."""
        turn = 0
        with self._listening():
            while self.report.cases < self._goal:
                left = self._goal - self.report.cases
                each = min(_ROUND, max(1, -(-left // len(self._generated))))
                with opened() as (world, sender):
                    for generated in self._generated:
                        self._fuzz(generated, world, sender, turn, each)
                turn += 1
        return self.report

    def _fuzz(
        self,
        generated: APIOperation[Any, Any, Any, Any],
        world: World,
        sender: Sender,
        turn: int,
        cases: int,
    ) -> None:
        operation = self._operations[generated.definition.raw["operationId"]]
        text = f"{self._number} {turn} {operation.name}"
        number = int.from_bytes(sha256(text.encode()).digest()[:8], "big")
        has_input = bool(operation.parameters) or "requestBody" in operation.definition
        modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if has_input else [])]
        strategy = st.one_of(generated.as_strategy(generation_mode=mode) for mode in modes)

        aims = Random(number)

        @seed(number)
        @settings(
            max_examples=cases,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def fuzz(case: schemathesis.Case) -> None:
            # Not drawn: Hypothesis prefers small numbers, and would send most as one caller.
            aim = Aim(world, sender, operation, aims.getrandbits(64))
            self._try(operation, case, aim, world, sender)

        with suppress(Unsatisfiable):  # there is nothing of this kind to generate
            fuzz()

    def _try(
        self, operation: Operation, case: schemathesis.Case, aim: Aim, world: World, sender: Sender
    ) -> None:
        report = self.report
        mode = case.meta.generation.mode.value if case.meta else "positive"
        caller = aim.caller()
        call = aim.call(case, caller)
        if call is None:
            report.unsendable += 1
            return
        began_s = time.perf_counter()
        answer = sender.send(call)
        took_s = time.perf_counter() - began_s
        report.cases += 1
        report.statuses[operation.name, answer.status] += 1
        report.callers[caller.kind] += 1
        report.modes[mode] += 1
        report.slowest_s[operation.name] = max(report.slowest_s.get(operation.name, 0.0), took_s)
        found = list(breaches(world, operation, caller, call, answer))
        found += [f"logged: {message}" for message in self._log.take()]
        report.breaches += [
            Breach(operation.name, caller.kind, what, call.shown()) for what in found
        ]
        if answer.status < 300:
            learn(world, operation, aim.place, tell_json(answer))
        self._on_case(report)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        logger = logging.getLogger("flagd_server")
        logger.addHandler(self._log)
        try:
            with warnings.catch_warnings():
                # schemathesis draws from `random` within its strategies.
                warnings.simplefilter("ignore", HypothesisDeprecationWarning)
                yield
        finally:
            logger.removeHandler(self._log)


def show_progress(goal: int) -> Callable[[Report], None]:
    """Return what shows on one line how far it is, about each second, and breaches at once."""
    began_s = shown_s = time.monotonic()
    shown: set[tuple[str, str]] = set()

    def show(report: Report) -> None:
        nonlocal shown_s
        for breach in report.distinct() if len(report.breaches) > len(shown) else ():
            if breach.kind not in shown:
                shown.add(breach.kind)
                sys.stderr.write(f"\n{breach.operation}: {breach.what}\n{breach.shown}\n")
        now_s = time.monotonic()
        if now_s - shown_s < 1.0 and report.cases != goal:
            return
        shown_s = now_s
        rate = report.cases / max(now_s - began_s, 1e-9)
        line = f"{report.cases:>7,} of {goal:,} cases, {rate:.0f} a second"
        sys.stderr.write(f"\r{line}, {len(shown)} kinds of breaches ")
        sys.stderr.flush()

    return show
