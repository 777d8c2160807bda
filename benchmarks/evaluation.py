"""What a flag costs the application that asks for it, against functions written by hand.

The floor of a boolean flag is one function with one murmur3 hash, one dict look-up (of the flag by
its key) and one comparison; that of the flag with rules is the same decisions written out. Every
call is answered by a real evaluation: in a scope each flag is asked for once, as the scope
remembers what it served. The client is a real one with its threads running, on a transport in
memory.

"In a scope" times the calls alone, each of which records an exposure; what counting them at the
end of the scope costs is in the rows about whole scopes. Those count their own scopes, all of them,
and none of another row's. "Looked at" is with a threshold for latency and a sample of a quarter of
the users, as the server asks for them: of users who come again within the hour, and of new ones.
"""

import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import flagd_sdk
from benchmarks._flags import (
    FLAGS,
    SET_SIZE,
    boolean_by_hand,
    boolean_flag,
    flag_set_document,
    mixed_document,
    rules_by_hand,
    rules_flag,
    users,
)
from benchmarks._harness import Row, at_least, at_most, informs, interleaved, ratio
from flagd_sdk.client import FlagClient
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.errors import ConnectError
from flagd_sdk.transport import FetchedFlags, Stream

# Asked for in one scope; a request that asks for many more is the row of 100 flags.
FLAGS_A_SCOPE = 10
# --- the client --------------------------------------------------------------------------------


class QuietTransport:
    """A server that accepts every summary and says the same to each."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._reply = {"accepted": 0, "processes": 1, **asked}

    def fetch_flags(self, etag: str) -> FetchedFlags | None:
        raise ConnectError("there is no server")

    def open_stream(self, last_event_id: str, instance: str) -> Stream:
        raise ConnectError("there is no server")

    def send_summary(self, body: bytes) -> Mapping[str, Any]:
        return self._reply

    def after_fork(self) -> None:
        pass


ASKED = {"slow_over_s": {"p99": 1.0}, "exposed_below": "4" + "0" * 15}


@contextmanager
def _client(
    flags: list[dict[str, Any]], asked: Mapping[str, Any] | None = None
) -> Iterator[FlagClient]:
    client = FlagClient(
        "http://127.0.0.1:9",
        "none",
        bootstrap=flag_set_document(flags),
        cache_dir=None,
        transport=QuietTransport(asked or {}),
    )
    with client:
        if asked:
            client.is_enabled(flags[0]["key"])
            assert client.flush(10.0)  # the reply has come
        yield client


def _whole_scopes(
    client: FlagClient, contexts: Iterable[Mapping[str, object]], keys: list[str]
) -> float:
    """Time scopes from opening them to their counts, in each of which these flags are asked for."""
    is_enabled, scope = client.is_enabled, client.scope
    count_finished = client._engine.reporter.count_finished
    contexts = list(contexts)
    count_finished()  # what others left
    began = perf_counter()
    if len(keys) == 1:
        (key,) = keys
        for context in contexts:
            with scope(context):
                is_enabled(key)
    else:
        for context in contexts:
            with scope(context):
                for key in keys:
                    is_enabled(key)
    count_finished()
    return (perf_counter() - began) / len(contexts)


def _calls(function: Callable[[Any], object], arguments: list[Any]) -> float:
    began = perf_counter()
    for argument in arguments:
        function(argument)
    return (perf_counter() - began) / len(arguments)


# --- the measurements --------------------------------------------------------------------------


def _one_flag(rounds: int, repeats: int) -> list[Row]:
    booleans = [f"flag-{index}" for index in range(FLAGS)]
    rules = [f"rules-{index}" for index in range(FLAGS)]
    contexts = users(FLAGS)
    units = [str(context["targetingKey"]) for context in contexts]
    flags = [boolean_flag(key) for key in booleans] + [rules_flag(key) for key in rules]
    with _client(flags) as client:

        def in_scopes(ask: Callable[[str], object], keys: list[str]) -> float:
            spent = 0.0
            for index in range(repeats * 10):
                with client.scope(contexts[index % FLAGS]):
                    first = index * FLAGS_A_SCOPE % FLAGS
                    spent += _calls(ask, keys[first : first + FLAGS_A_SCOPE])
            return spent / (repeats * 10)

        def by_hand(function: Callable[[Any], object]) -> float:
            spent = 0.0
            for index in range(repeats * 10):
                first = index * FLAGS_A_SCOPE % FLAGS
                spent += _calls(function, contexts[first : first + FLAGS_A_SCOPE])
            return spent / (repeats * 10)

        times = interleaved(
            {
                "floor": lambda: _boolean_floor(units, booleans, repeats),
                "boolean": lambda: in_scopes(client.is_enabled, booleans),
                "scope": lambda: _whole_scopes(client, contexts, booleans[:1]),
                "hundred": lambda: _whole_scopes(client, contexts[:repeats], booleans),
                "rules floor": lambda: by_hand(rules_by_hand),
                "rules": lambda: in_scopes(lambda key: client.value(key, ""), rules),
                "lambda": lambda: in_scopes(lambda key: key, rules),
            },
            rounds,
        )
    floor, rules_floor = times["floor"], times["rules floor"]
    # What the lambda around `value` adds is the benchmark's own.
    rules_times = [taken - own for taken, own in zip(times["rules"], times["lambda"], strict=True)]
    return [
        informs("floor: boolean by hand", median(floor) * 1e9, "ns"),
        informs("boolean at 25 %, in a scope", median(times["boolean"]) * 1e9, "ns"),
        at_most("the same / floor", ratio(times["boolean"], floor), "×", 2.5),
        informs("floor: rules by hand", median(rules_floor) * 1e9, "ns"),
        informs("four variants, three rules, in a scope", median(rules_times) * 1e9, "ns"),
        at_most("the same / floor", ratio(rules_times, rules_floor), "×", 3.0),
        informs("scope opened, one flag, closed", median(times["scope"]) * 1e9, "ns"),
        at_most("the same / floor", ratio(times["scope"], floor), "×", 12.0),
        informs("scope opened, 100 flags, closed", median(times["hundred"]) * 1e6, "µs"),
        at_most("the same / 100 floors", ratio(times["hundred"], floor) / FLAGS, "×", 6.0),
    ]


def _boolean_floor(units: list[str], keys: list[str], repeats: int) -> float:
    spent = 0.0
    for index in range(repeats * 10):
        unit = units[index % FLAGS]
        first = index * FLAGS_A_SCOPE % FLAGS
        asked = keys[first : first + FLAGS_A_SCOPE]
        began = perf_counter()
        for key in asked:
            boolean_by_hand(key, unit)
        spent += (perf_counter() - began) / FLAGS_A_SCOPE
    return spent / (repeats * 10)


def _looked_at(rounds: int, repeats: int) -> list[Row]:
    """Time scopes of a client that was asked to look at units, after the one that was not.

    Not in turn with that one: both are the same code, which the interpreter fits to one of them.
    """
    keys = [f"flag-{index}" for index in range(FLAGS)]
    contexts = users(FLAGS)
    units = [str(context["targetingKey"]) for context in contexts]
    newcomers = ({"targetingKey": f"newcomer-{number}"} for number in count())
    with _client([boolean_flag(key) for key in keys], ASKED) as client:
        times = interleaved(
            {
                "floor": lambda: _boolean_floor(units, keys, repeats),
                "known": lambda: _whole_scopes(client, contexts, keys[:1]),
                "new": lambda: _whole_scopes(client, islice(newcomers, FLAGS), keys[:1]),
            },
            rounds,
        )
    floor = times["floor"]
    return [
        informs("one flag, looked at / floor", ratio(times["known"], floor), "×"),
        informs("one flag, looked at, a new user / floor", ratio(times["new"], floor), "×"),
    ]


def _two_threads(rounds: int, repeats: int) -> Row:
    keys = [f"flag-{index}" for index in range(FLAGS)]
    contexts = users(repeats * 4)
    with _client([boolean_flag(key) for key in keys]) as client:

        def work(share: list[dict[str, object]]) -> None:
            for context in share:
                with client.scope(context):
                    for key in keys:
                        client.is_enabled(key)

        def threads(count: int) -> float:
            shares = [contexts[index::count] for index in range(count)]
            workers = [threading.Thread(target=work, args=(share,)) for share in shares]
            began = perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return perf_counter() - began

        times = interleaved({"one": lambda: threads(1), "two": lambda: threads(2)}, rounds)
    return at_least("throughput of two threads / one", ratio(times["one"], times["two"]), "×", 0.95)


def _thousand_flags(rounds: int) -> list[Row]:
    text = json.dumps(mixed_document())
    changed = boolean_flag("flag-0")
    times: dict[str, list[float]] = {"read": [], "compile": [], "change": []}
    for _ in range(rounds):
        gc.collect()  # what earlier rounds left is not this one's to clean up
        began = perf_counter()
        document = json.loads(text)
        read = perf_counter()
        flag_set = parse_flag_set(document)
        compiled = perf_counter()
        times["read"].append(read - began)
        times["compile"].append(compiled - read)
        for version in range(8, 28):
            changed["version"] = version
            began = perf_counter()
            flag_set = flag_set.with_flag(version, "flag-0", changed)
            times["change"].append(perf_counter() - began)
        del document, flag_set
    return [
        informs("1,000 flags: json.loads", median(times["read"]) * 1e3, "ms"),
        at_most(
            "1,000 flags ready, from the document read", median(times["compile"]) * 1e3, "ms", 15.0
        ),
        at_most("1,000 flags in memory", _memory_mb(text), "MB", 6.0),
        at_most("one flag of them changed", median(times["change"]) * 1e6, "µs", 100.0),
    ]


def _memory_mb(text: str) -> float:
    """Return what a flag set keeps once the document it came from is gone."""
    gc.collect()
    tracemalloc.start()
    flag_set = parse_flag_set(json.loads(text))
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(flag_set.flags) == SET_SIZE
    return kept / 1e6


def _import_time(rounds: int) -> Row:
    """Time whole interpreters, with a warm byte code cache as any application has."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}
        environment["PYTHONPYCACHEPREFIX"] = cache
        environment["PYTHONPATH"] = str(Path(flagd_sdk.__file__).parent.parent)

        def python(code: str) -> float:
            began = perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            return perf_counter() - began

        times = interleaved(
            {"bare": lambda: python("pass"), "sdk": lambda: python("import flagd_sdk")}, rounds
        )
    more = median(sdk - bare for sdk, bare in zip(times["sdk"], times["bare"], strict=True))
    return at_most("import flagd_sdk, more than bare Python", more * 1e3, "ms", 30.0)


_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


def run(small: bool) -> list[Row]:
    """Measure; `small` takes a few seconds."""
    # The transport has no server, which the client would tell.
    logging.getLogger("flagd_sdk").setLevel(logging.CRITICAL)
    rounds, repeats = (15, 20) if small else (41, 40)
    return [
        *_one_flag(rounds, repeats),
        *_looked_at(rounds, repeats),
        _two_threads(rounds, repeats * 5),
        *_thousand_flags(rounds),
        _import_time(5 if small else 15),
    ]
