import os
import sys
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from flagd_sdk import FlagClient
from flagd_sdk.hosting import forks_unseen, stops_threads
from tests.sdk.fakes import MemoryTransport, flag, flag_set

Opt = dict[str, Any]


def under_uwsgi(
    monkeypatch: pytest.MonkeyPatch,
    *,
    worker: int = 0,
    master: int | None = None,
    version: bytes = b"2.0.30",
    **options: Any,
) -> SimpleNamespace:
    """Put the module in place that uWSGI has in its processes."""
    module = SimpleNamespace(
        worker_id=lambda: worker,
        masterpid=lambda: os.getpid() if master is None else master,
        version=version,
        opt={name.replace("_", "-"): value for name, value in options.items()},
    )
    monkeypatch.setitem(sys.modules, "uwsgi", module)  # type: ignore[arg-type]
    return module


@pytest.mark.parametrize(
    ("process", "is_unseen"),
    [
        ({}, True),
        ({"master": 0}, True),  # no master, and the first worker is yet to be forked
        ({"worker": 1, "master": 1}, False),
        ({"master": 1}, False),  # a mule or a spooler
        ({"py_call_uwsgi_fork_hooks": True}, False),
    ],
)
def test_the_process_that_uwsgi_forks_is_known(
    process: Opt, is_unseen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not forks_unseen()
    under_uwsgi(monkeypatch, **process)
    assert forks_unseen() is is_unseen


@pytest.mark.parametrize(
    ("settings", "are_stopped"),
    [
        ({"version": b"2.0.26"}, True),
        ({"version": b"2.0.30"}, False),
        ({"version": b"2.1-dev-abc"}, False),
        ({"version": b"2.0.21-debian", "enable_threads": True}, False),
        ({"version": b"2.0.21", "threads": b"4"}, False),
        ({"version": b"2.0.21", "gevent": b"100"}, False),
    ],
)
def test_a_uwsgi_that_lets_no_thread_run_is_known(
    settings: Opt, are_stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not stops_threads()
    under_uwsgi(monkeypatch, **settings)
    assert stops_threads() is are_stopped


def test_a_stub_of_the_module_is_not_uwsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace())  # type: ignore[arg-type]
    assert not forks_unseen()
    assert not stops_threads()


def test_without_threads_nobody_is_kept_waiting_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = under_uwsgi(monkeypatch)
    transport = MemoryTransport()
    flags = FlagClient(
        "http://server",
        "t",
        bootstrap=flag_set(flag("on", on=100_000)),
        cache_dir=None,
        transport=transport,
        instance="given",
    )
    with flags.scope({"targetingKey": "u1"}):
        assert flags.is_enabled("on")
    assert not flags.wait_until_ready(3600)
    began_at = monotonic()
    flags.flush(3600)
    assert monotonic() - began_at < 60
    # As after a fork of which no hook told: another process by its number alone.
    module.worker_id = lambda: 1
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with flags.scope({"targetingKey": "u1"}):
        assert flags.is_enabled("on")
    assert flags.flush(60)
    assert flags.close(60)
    cells = [cell for summary in transport.summaries for cell in summary["cells"]]
    assert [cell["exposures"] for cell in cells] == [1], "the master's is not counted again"
    assert {summary["instance"] for summary in transport.summaries}.isdisjoint({"given"})


def test_threads_that_stand_still_are_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = under_uwsgi(monkeypatch, version=b"2.0.21")
    with FlagClient("http://server", "t", cache_dir=None, transport=MemoryTransport()) as flags:
        module.worker_id = lambda: 1
        assert not flags.is_enabled("on")
        assert not flags.is_enabled("on")
    assert sum("enable-threads" in record.getMessage() for record in caplog.records) == 1
