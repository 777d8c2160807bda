"""The process of one contender: reads a command a line, answers each with a line of JSON.

check                      → [fault, …]
time <seconds> <workload>  → seconds an asked-for user takes, with one thread
two <seconds> <workload>   → the same with two threads at once, seconds of both over users of both
"""

import gc
import json
import logging
import sys
from collections.abc import Sequence
from threading import Barrier, Thread
from time import perf_counter
from typing import Any

from benchmarks.peers.contenders import Contender, open_contender
from benchmarks.peers.workload import WORKLOADS, faults, users


def main() -> None:
    name, recording, sink = sys.argv[1:]
    # What a client has to say of a server that is none would be timed too.
    logging.disable(logging.CRITICAL)
    contender = open_contender(name, recording == "recording", sink)
    asked = [(user, contender.prepared(user)) for user in users()]
    forms = [form for _, form in asked]
    answer(contender.package, contender.records)
    for line in sys.stdin:
        command, *rest = line.split(maxsplit=2)
        if command == "check":
            answer(*faults(contender.is_on, asked))
        else:
            budget_s, workload = float(rest[0]), rest[1].strip()
            threads = 2 if command == "two" else 1
            answer(timed(contender, WORKLOADS[workload], forms, budget_s, threads))
    contender.close()


def answer(*words: object) -> None:
    print(json.dumps(words), flush=True)


def timed(
    contender: Contender, keys: Sequence[str], forms: list[Any], budget_s: float, threads: int
) -> float:
    """Ask for all users, over and over, for about a time; return seconds a user."""
    contender.ask_all(keys, forms[:500])
    passes = 0
    shares = [forms[index::threads] for index in range(threads)]
    gc.collect()
    spent_s = 0.0
    while spent_s < budget_s:
        spent_s += _one_pass(contender, keys, shares)
        passes += 1
    return spent_s / (passes * len(forms))


def _one_pass(contender: Contender, keys: Sequence[str], shares: list[list[Any]]) -> float:
    if len(shares) == 1:
        began = perf_counter()
        contender.ask_all(keys, shares[0])
        return perf_counter() - began
    start = Barrier(len(shares) + 1)

    def ask(share: list[Any]) -> None:
        start.wait()
        contender.ask_all(keys, share)

    workers = [Thread(target=ask, args=(share,)) for share in shares]
    for worker in workers:
        worker.start()
    start.wait()
    began = perf_counter()
    for worker in workers:
        worker.join()
    return perf_counter() - began


if __name__ == "__main__":
    main()
