"""Runs lives of the rows over the cores, and keeps each as a line that a later run goes on from."""

import json
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import flagd_server
from benchmarks.guard.cases import CASES, Case
from benchmarks.guard.peers import FixedThreshold, RepeatedZTest, SequentialInterval
from benchmarks.real_traffic import load_traffic, recorded_life
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Policy
from flagd_server.domain.guard.traffic import Request
from flagd_server.simulation.life import Judge, kills, race

GUARD = "guard"
PEERS = ("fixed threshold", "repeated z-test", "sequential interval")
_PROCESSES = 3
_BY_NAME = {case.name: case for case in CASES}


class Life(NamedTuple):
    """How one life went. `killed_after_s`: by judge, counted from the fault or the start; below 0
    for one that was killed before its fault, None without a kill."""

    case: str
    seed: int
    killed_after_s: Mapping[str, float | None]


class Job(NamedTuple):
    case: str
    seed: int
    with_peers: bool = True


class ResultsError(ValueError):
    """A file of results that this run can't go on from."""


def run_life(job: Job) -> Life:
    """Run one life; a function of the job alone."""
    case = _BY_NAME[job.case]
    if case.scenario is not None:
        endings = race(case.scenario, job.seed, _judges(0.0, with_peers=job.with_peers))
        after_s = {name: ending.killed_after_s for name, ending in endings.items()}
        return Life(job.case, job.seed, after_s)
    traffic = _recorded()
    assert case.real_share is not None, "a row is simulated or recorded"
    started_at = traffic[0].t
    judges = _judges(started_at, with_peers=job.with_peers)
    killed_at = dict(kills(recorded_life(traffic, case.real_share, _PROCESSES, job.seed), judges))
    return Life(
        job.case,
        job.seed,
        {name: killed_at[name] - started_at if name in killed_at else None for name in judges},
    )


def _judges(started_at: float, *, with_peers: bool) -> dict[str, Judge]:
    guard: Judge = FlagGuard(Policy(off_variant="off"), started_at)
    if not with_peers:
        return {GUARD: guard}
    peers: tuple[Judge, ...] = (FixedThreshold(), RepeatedZTest(), SequentialInterval())
    return {GUARD: guard, **dict(zip(PEERS, peers, strict=True))}


_traffic: list[Request] = []


def _recorded() -> Sequence[Request]:
    if not _traffic:  # once in each worker
        _traffic.extend(load_traffic())
    return _traffic


def run_lives(jobs: Sequence[Job], workers: int) -> Iterator[Life]:
    """Run jobs over so many processes; yield each life as it ends."""
    # The long ones first, so that all cores end together.
    longest_first = sorted(jobs, key=lambda job: -_duration_s(_BY_NAME[job.case]))
    # Ctrl-C is the main process's to answer: what has ended by then is kept.
    with Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap_unordered(run_life, longest_first)


def _duration_s(case: Case) -> float:
    return 0.0 if case.scenario is None else case.scenario.duration_s


class Results:
    """Lives in a file of JSON lines, the first of which names the code that they were run by."""

    def __init__(self, path: Path) -> None:
        """Open a file to go on from, or begin one.

        Raises:
            ResultsError: it was written by other code.
        """
        self._path = path
        self.lives: list[Life] = []
        header = {"code": fingerprint()}
        if not path.exists():
            path.write_text(json.dumps(header) + "\n", encoding="utf-8")
            return
        first, *lines = path.read_text("utf-8").splitlines()
        if json.loads(first) != header:
            raise ResultsError(
                f"{path}: was written by other code: remove it, or name another file"
            )
        # A run that was stopped may have left half a line.
        whole = [line for line in lines if line.endswith("}")]
        self.lives = [Life(**json.loads(line)) for line in whole]
        if whole != lines:
            path.write_text("\n".join([first, *whole]) + "\n", encoding="utf-8")

    def add(self, life: Life) -> None:
        self.lives.append(life)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(life._asdict(), ensure_ascii=False) + "\n")

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs of which the life is not there yet."""
        there = {(life.case, life.seed) for life in self.lives}
        return [job for job in jobs if (job.case, job.seed) not in there]


def fingerprint() -> str:
    """Return a digest of all the code that a life depends on."""
    server = Path(flagd_server.__file__).parent
    here = Path(__file__).parent
    folders = (server / "domain" / "guard", server / "stats", server / "simulation", here)
    digest = sha256()
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
