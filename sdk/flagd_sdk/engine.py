"""The background half of a client: what starts, forks and ends together."""

import atexit
import json
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import ClassVar

from flagd_sdk.config import ClientConfig
from flagd_sdk.core.local_kill import parted
from flagd_sdk.errors import ConfigurationError, ParseError
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.flag_state import FlagState
from flagd_sdk.hosting import forks_unseen, off_the_loop, stops_threads
from flagd_sdk.local_breaker import LocalBreaker
from flagd_sdk.local_breaker import load as load_breaker
from flagd_sdk.notices import Notices
from flagd_sdk.reporter import Reporter
from flagd_sdk.scope import Scope, abandon_all
from flagd_sdk.streaming import FlagStream
from flagd_sdk.transport import HttpTransport, Transport


class Engine:
    """Two threads and what they share.

    They are two so that a kill never waits behind a slow report. A forked child has neither; they
    are started again at its first use of the client.

    Attributes:
        is_dormant: the threads are to be started at the next use.
        is_closed: its owner has waited for its end, for as long as he wanted.
        error_samples: whether messages of errors may be reported.
        exit_timeout_s: what the interpreter's exit may wait.
        on_failure: called with a scope and the exception that failed it; see `ScopeOwner`.
    """

    _reporter_type: ClassVar[type[Reporter]] = Reporter

    def __init__(self, config: ClientConfig, transport: Transport | None) -> None:
        """Serve what disk or bootstrap hold; start no thread yet.

        Raises:
            ConfigurationError: the bootstrap can't be read or is no flag set.
        """
        self.is_dormant = True
        self.is_closed = False
        self.exit_timeout_s = config.exit_timeout_s
        self.error_samples = config.error_samples
        self.notices = Notices(time.monotonic)
        self.on_failure: Callable[[Scope, BaseException], object] | None = None
        self.state = FlagState(self.notices, config.environment)
        self._config = config
        self._cache = FlagCache(config, self.notices)
        # What the disk has: the document, and what is held off here.
        self._kept: tuple[object, object] = (None, None)
        self._has_breaker = config.local_breaker
        self._preload()
        self._instance = config.instance or _random_name()
        self._pid = os.getpid()  # whose name that is
        self._transport = transport or HttpTransport(config)
        # For jitter only.
        jitter = random.Random().random  # noqa: S311
        breaker = None
        if self._has_breaker:
            breaker = LocalBreaker(self.state, lambda: datetime.now(UTC))
        self.reporter = self._reporter_type(
            self._transport,
            config,
            self.notices,
            self.instance,
            self._applied_sequence,
            time.monotonic,
            lambda: datetime.now(UTC),
            jitter,
            self.ensure_started,
            self._keep_house,
            lambda: self.stream.asked_s,
            breaker,
        )
        self.state.on_urgent = self.reporter.hurry
        self.stream = FlagStream(
            self.state,
            self._transport,
            config,
            self.notices,
            self.instance,
            time.monotonic,
            jitter,
        )
        # Guards starting and stopping. Of the kind that a signal handler, which interrupts its
        # owner and closes the client, can take again.
        self._lock = threading.RLock()
        self._is_stopped = False
        _engines.add(self)

    def instance(self) -> str:
        """Return the name of this process; a forked child has another."""
        return self._instance

    def ensure_started(self) -> None:
        """Start the threads where they do not run and were not stopped. Never raises."""
        if not self.is_dormant:
            return
        with self._lock:
            if self._is_stopped or not self.is_dormant:
                return
            if forks_unseen():
                self._wait_for_the_fork()
                return
            if self._pid != os.getpid():  # such a fork, and no hook told
                self._rename()
            try:
                self.stream.start()
                self.reporter.start()
            except RuntimeError as error:  # no more threads in this container
                self.notices.tell("start", "The flag client's threads can't start: %s", error)
                return
            self.is_dormant = False
            _report_at_the_end()
            if stops_threads():
                self.notices.tell(
                    "start:uwsgi threads",
                    "uWSGI runs without enable-threads: flags change and counts are reported only"
                    " while requests are being answered",
                )
        if self.state.is_ready:
            self.reporter.hurry()  # a forked child shows at once what it has applied

    def stop(self, patience_s: float = 0.0) -> None:
        """Tell the threads to end, the reporter with a last summary; see `Reporter.stop`."""
        with self._lock:
            self._is_stopped = True
            self.is_dormant = False
        self.stream.stop()
        self.reporter.stop(patience_s)

    def close(self, timeout_s: float) -> bool:
        """Stop and wait; return whether all ended in time. May be called again."""
        deadline = time.monotonic() + timeout_s
        self.is_closed = True
        self.stop(timeout_s)
        has_reported = self.reporter.join(timeout_s)
        return self.stream.join(max(0.0, deadline - time.monotonic())) and has_reported

    def after_fork(self) -> None:
        """Make a child process's copy usable: no lock of the parent's, no count, no thread."""
        self._lock = threading.RLock()
        self._rename()
        self.notices.after_fork()
        self.state.after_fork()
        self._transport.after_fork()
        self.stream.after_fork()
        self.reporter.after_fork()
        self.is_dormant = not self._is_stopped

    def _rename(self) -> None:
        # Not the given name again: summaries are numbered per instance.
        self._instance, self._pid = _random_name(), os.getpid()

    def _wait_for_the_fork(self) -> None:
        # What is counted here nobody would report, but each of the children would inherit it.
        self.reporter.after_fork()
        self.notices.mention(
            "start:uwsgi fork",
            "uWSGI forks its workers without Python's knowledge, so the flag client's threads start"
            " in them, with its first use there (or set lazy-apps, or py-call-uwsgi-fork-hooks)",
        )

    def _applied_sequence(self) -> int:
        return self.state.flag_set.sequence if self.state.is_ready else 0

    def _preload(self) -> None:
        kept = self._cache.load()
        if kept is not None:
            flags, kills = parted(kept)
            try:
                self.state.preload(flags, True, kills if self._has_breaker else ())
            except (ParseError, RecursionError) as error:
                self._cache.distrust()
                self.notices.tell("cache:load", "The flag set kept on disk is not used: %s", error)
            else:
                self._kept = self.state.document, self.state.local_kills
                return
        source = self._config.bootstrap
        if source is None:
            return
        try:
            if isinstance(source, Mapping):
                document: object = dict(source)
            else:
                with open(source, encoding="utf-8") as file:
                    document = json.load(file)
            self.state.preload(document, is_from_server=False)
        except (OSError, ValueError, RecursionError, ParseError) as error:
            raise ConfigurationError(f"bootstrap: expected a flag set; {error}") from error

    def _keep_house(self) -> None:
        """Do what the application's and the stream's thread leave: tell, and write to the disk."""
        state = self.state
        if self._has_breaker:
            load_breaker()  # here, that it need not be on the thread of the first failure
        state.tell_local()
        document, kills = state.document, state.local_kills
        if document is None or not state.is_from_server or _are_same((document, kills), self._kept):
            return
        if state.is_mixed:  # the server's whole set is on its way
            return

        def save() -> None:
            if self._cache.save(document, document["sequence"], kills.values(), state.lifted):
                self._kept = document, kills

        off_the_loop(save)


def _are_same(values: tuple[object, ...], kept: tuple[object, ...]) -> bool:
    return all(value is other for value, other in zip(values, kept, strict=True))


def _random_name() -> str:
    return f"i-{os.urandom(12).hex()}"


# Weak: an engine lives as long as its client.
_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # The unit of work in which the fork happened is the parent's to count.
    abandon_all()
    for engine in list(_engines):
        engine.after_fork()


def _at_exit() -> None:
    engines = [engine for engine in _engines if not engine.is_closed]
    for engine in engines:
        engine.stop(engine.exit_timeout_s)
    deadline = time.monotonic() + max((engine.exit_timeout_s for engine in engines), default=0.0)
    for engine in engines:
        engine.close(max(0.0, deadline - time.monotonic()))


_reporting_pid = 0  # the process whose end `_report_at_the_end` was last asked to see to


def _report_at_the_end() -> None:
    """Have the last summary sent as this process ends; asking again is harmless."""
    global _reporting_pid
    if _reporting_pid == os.getpid():
        return
    if not _reporting_pid:
        # Not with this module, but behind the first weakref.finalize: what was registered last
        # runs first, and after theirs urllib3 closes its connections no more.
        atexit.register(_at_exit)
    _reporting_pid = os.getpid()
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        # A worker (of a pool, an executor) ends without atexit, but runs its own finalizers. This
        # is to be one of the last, behind those that wait for the worker's own children.
        util.Finalize(None, _at_exit, exitpriority=-1_000)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
