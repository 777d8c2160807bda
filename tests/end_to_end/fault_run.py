"""Puts clients behind faults and notes what an application sees.

`python -m tests.end_to_end.fault_run --fault-s 60` prints the table of docs/resilience.md.
"""

import argparse
import logging
import resource
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter_ns
from typing import Any, NamedTuple

import requests

from flagd_sdk import FlagClient
from flagd_sdk.config import ClientConfig
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.notices import Notices
from flagd_sdk.transport import HttpTransport
from tests.end_to_end.faults import FAULTS, Fault
from tests.end_to_end.misbehaving import MisbehavingServer, worst_second
from tests.sdk.fakes import flag, flag_set

TOKEN = "fr_sdk_production_SeCrEtOfTheToken"
BACK_WITHIN_S = 35.0
AT_START, RUNNING = "at the start", "while running"
_BETWEEN_S = 0.02
_READY_S = 60.0
_PAUSED_S = 0.5  # who is so late from a short wait was given no processor


class Seen(NamedTuple):
    """What an application saw of one fault.

    Attributes:
        values: of a flag that is on until the fault is over.
        went_back: whether the sequence in use ever fell.
        connections: most in any one second, counted as requests where they can't be refused apart.
        slowest_ms: of the evaluations during which the system took no processor away.
        warnings: logged until the end of the fault, by anyone, on the client's threads.
        back_s: from the end of the fault to the first fresh value, less what the machine gave this
            process no processor for; None if that never came.
        crashes: messages with a traceback.
        heads: what was asked of the server.
    """

    fault: str
    phase: str
    values: frozenset[bool]
    went_back: bool
    connections: int
    slowest_ms: float
    evaluations: int
    warnings: tuple[str, ...]
    back_s: float | None
    crashes: tuple[str, ...]
    heads: tuple[str, ...]

    def row(self) -> str:
        back = "never" if self.back_s is None else f"{self.back_s:.1f}"
        return (
            f"| {self.fault} | {self.phase} | {self.connections} | {self.slowest_ms:.2f}"
            f" | {len(self.warnings)} | {back} |"
        )


HEADER = (
    "| fault | phase | connections in the worst second | slowest evaluation, ms | warnings"
    " | back after, s |\n| --- | --- | ---: | ---: | ---: | ---: |"
)


class _CountingTransport(HttpTransport):
    """Notes when something is asked, as a port where nobody listens counts nothing."""

    def __init__(self, config: ClientConfig) -> None:
        super().__init__(config)
        self.asked_at: list[float] = []

    def _send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.asked_at.append(monotonic())
        return super()._send(*args, **kwargs)


class _Log(logging.Handler):
    """Keeps what is logged, by whatever library, on each thread."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, client: FlagClient, since: float) -> list[logging.LogRecord]:
        """Return what its threads logged since its start: threads that ended had their numbers."""
        engine = client._engine
        threads = {t.ident for t in (engine.stream._thread, engine.reporter._thread) if t}
        return [
            record
            for record in self.records
            if record.thread in threads and record.created >= since
        ]


class _Application:
    """Evaluates in units of work, one of them failed now and then, and looks at the clock."""

    def __init__(self, client: FlagClient) -> None:
        self.client = client
        self.values: set[bool] = set()
        self.slowest_ns = 0
        self.evaluations = 0
        self.went_back = False
        self._sequence = 0

    def work(self, seconds: float) -> None:
        client, end = self.client, monotonic() + seconds
        pause = threading.Event()
        while monotonic() < end:
            with client.scope({"targetingKey": f"u{self.evaluations}"}):
                preempted = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
                began_ns = perf_counter_ns()
                value = client.is_enabled("on", False)
                took_ns = perf_counter_ns() - began_ns
                if resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw == preempted:
                    self.slowest_ns = max(self.slowest_ns, took_ns)
                if self.evaluations % 50 == 0:
                    client.fail(f"kind-{self.evaluations}")
            self.evaluations += 1
            self.values.add(value)
            sequence = client.flag_set.sequence
            self.went_back |= sequence < self._sequence
            self._sequence = sequence
            pause.wait(_BETWEEN_S)


def observe(
    name: str, fault: Fault, phase: str, fault_s: float, folder: Path, log: "_Log", **settings: Any
) -> Seen:
    """Run one client through one fault, with the default settings but for those given."""
    truth = flag_set(flag("on", on=100_000), sequence=50)
    with MisbehavingServer(truth) as server:
        config = ClientConfig(url=server.url, token=TOKEN, cache_dir=folder, **settings)
        if phase == AT_START:  # a value is known from before
            FlagCache(config, Notices(monotonic)).save({**truth, "sequence": 49}, 49)
            _break_down(server, fault)
        transport = _CountingTransport(config.checked())
        started_at = time.time()
        client = FlagClient(server.url, TOKEN, cache_dir=folder, transport=transport, **settings)
        try:
            if phase == RUNNING:
                assert client.wait_until_ready(_READY_S), name
                _until(lambda: any("/stream" in head for head in server.headers), _READY_S)
                _break_down(server, fault)
            began_at = monotonic()
            application = _Application(client)
            application.work(fault_s)
            logged = log.of(client, started_at)
            server.publish(flag("on", on=0, version=2))
            server.heal(cut=fault.lets_go)
            healed_at = monotonic()
            paused = _Paused()
            is_back = _until(
                lambda: client.is_enabled("on", True) is False, 2 * BACK_WITHIN_S, paused
            )
            back_s = monotonic() - healed_at - paused.seconds
            asked_at = [at for at in transport.asked_at if at >= began_at]
            connected_at = [at for at in server.connected_at if at >= began_at]
            crashes = tuple(r.getMessage() for r in log.of(client, started_at) if r.exc_info)
            return Seen(
                name,
                phase,
                frozenset(application.values),
                application.went_back,
                worst_second(connected_at if fault.handler else asked_at),
                application.slowest_ns / 1e6,
                application.evaluations,
                tuple(r.getMessage() for r in logged if r.levelno >= logging.WARNING),
                back_s if is_back else None,
                crashes,
                tuple(server.headers),
            )
        finally:
            client.close(1.0)


def observe_all(
    faults: Mapping[str, Fault], fault_s: float, folder: Path, **settings: Any
) -> list[Seen]:
    """Run every fault in both phases, all at once, each with a client and a server of its own."""
    jobs = [(name, phase) for name in faults for phase in (AT_START, RUNNING)]
    with _logged() as log, ThreadPoolExecutor(len(jobs)) as pool:
        seen = [
            pool.submit(
                observe, name, faults[name], phase, fault_s, folder / str(number), log, **settings
            )
            for number, (name, phase) in enumerate(jobs)
        ]
        return [future.result() for future in seen]


@contextmanager
def _logged() -> Any:
    log = _Log()
    root, ours = logging.getLogger(), logging.getLogger("flagd_sdk")
    level = ours.level
    ours.setLevel(logging.INFO)
    root.addHandler(log)
    try:
        yield log
    finally:
        root.removeHandler(log)
        ours.setLevel(level)


def _break_down(server: MisbehavingServer, fault: Fault) -> None:
    if fault.handler is None:
        server.refuse()
    else:
        server.misbehave(fault.handler, fault.cuts)


class _Paused:
    """How long this thread did not run, although it wanted to; the clients' did not, either."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked_at = monotonic()

    def look(self) -> None:
        now = monotonic()
        late_s = now - self._looked_at - _BETWEEN_S
        if late_s > _PAUSED_S:
            self.seconds += late_s
        self._looked_at = now


def _until(
    condition: Callable[[], bool], timeout_s: float, paused: "_Paused | None" = None
) -> bool:
    deadline = monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if monotonic() > deadline:
            return False
        pause.wait(_BETWEEN_S)
        if paused is not None:
            paused.look()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.fault_run")
    parser.add_argument("--fault-s", type=float, default=20.0, help="how long each fault lasts")
    parser.add_argument("--only", help="faults with this in their name")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    faults = {name: fault for name, fault in FAULTS.items() if (options.only or "") in name}
    print(HEADER)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for seen in observe_all(faults, options.fault_s, Path(folder)):
            print(seen.row())
            if options.verbose:
                print(
                    sorted(seen.values),
                    seen.went_back,
                    seen.evaluations,
                    *seen.warnings,
                    sep="\n    ",
                )
                print(*seen.crashes, sep="\n !! ")


if __name__ == "__main__":
    main()
