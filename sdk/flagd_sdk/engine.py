"""The background half of a client: what starts, forks and ends together."""

import atexit
import json
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import ConfigurationError, ParseError
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.flag_state import FlagState
from flagd_sdk.notices import Notices
from flagd_sdk.reporter import Reporter
from flagd_sdk.scope import abandon_all
from flagd_sdk.streaming import FlagStream
from flagd_sdk.transport import HttpTransport, Transport


class Engine:
    """Two threads and what they share.

    They are two so that a kill never waits behind a slow report. A forked child has neither; they
    are started again at its first use of the client.

    Attributes:
        is_dormant: the threads are to be started at the next use.
        error_samples: whether messages of errors may be reported.
        exit_timeout_s: what the interpreter's exit may wait.
    """

    def __init__(self, config: ClientConfig, transport: Transport | None) -> None:
        """Serve what disk or bootstrap hold; start no thread yet.

        Raises:
            ConfigurationError: the bootstrap can't be read or is no flag set.
        """
        self.is_dormant = True
        self.exit_timeout_s = config.exit_timeout_s
        self.error_samples = config.error_samples
        self.notices = Notices(time.monotonic)
        self.state = FlagState(self.notices)
        self._config = config
        self._cache = FlagCache(config, self.notices)
        self._kept: object = None  # the document that the disk has
        self._preload()
        self._instance = config.instance or _random_name()
        self._transport = transport or HttpTransport(config)
        # For jitter only.
        jitter = random.Random().random  # noqa: S311
        self.reporter = Reporter(
            self._transport,
            config,
            self.notices,
            self.instance,
            self._applied_sequence,
            time.monotonic,
            lambda: datetime.now(UTC),
            jitter,
            self.ensure_started,
            self._keep,
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
        self._lock = threading.Lock()  # guards starting and stopping
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
            try:
                self.stream.start()
                self.reporter.start()
            except RuntimeError as error:  # no more threads in this container
                self.notices.tell("start", "The flag client's threads can't start: %s", error)
                return
            self.is_dormant = False
            _report_at_the_end()
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
        self.stop(timeout_s)
        has_reported = self.reporter.join(timeout_s)
        return self.stream.join(max(0.0, deadline - time.monotonic())) and has_reported

    def after_fork(self) -> None:
        """Make a child process's copy usable: no lock of the parent's, no count, no thread."""
        self._lock = threading.Lock()
        # Not the given name again: summaries are numbered per instance.
        self._instance = _random_name()
        self.notices.after_fork()
        self.state.after_fork()
        self._transport.after_fork()
        self.stream.after_fork()
        self.reporter.after_fork()
        self.is_dormant = not self._is_stopped

    def _applied_sequence(self) -> int:
        return self.state.flag_set.sequence if self.state.is_ready else 0

    def _preload(self) -> None:
        kept = self._cache.load()
        if kept is not None:
            try:
                self.state.preload(kept, is_from_server=True)
            except ParseError as error:
                self.notices.tell("cache:load", "The flag set kept on disk is not used: %s", error)
            else:
                self._kept = self.state.document
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

    def _keep(self) -> None:
        """Bring the flag set to the disk where it has changed."""
        state = self.state
        document = state.document
        if document is None or document is self._kept or not state.is_from_server:
            return
        if self._cache.save(document, cast("int", document["sequence"])):
            self._kept = document


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
    engines = list(_engines)
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
