"""Hosts in which processes and threads are not what they seem: uWSGI and gevent."""

import os
import re
import sys
from collections.abc import Callable
from typing import Any

_THREAD_OPTIONS = frozenset(("enable-threads", "threads", "gevent", "asyncio"))
_THREADS_BY_DEFAULT = (2, 0, 27)


def forks_unseen() -> bool:
    """Whether this process is one that uWSGI forks without running any of Python's hooks.

    A thread here would be no thread there, but might hold the interpreter's lock in the moment of
    the fork and so leave it behind locked for ever (unbit/uwsgi, issues 1149 and 1369).
    """
    uwsgi = _uwsgi()
    return (
        uwsgi is not None
        and uwsgi.worker_id() == 0
        and uwsgi.masterpid() in (0, os.getpid())  # else it is a mule or a spooler
        and "py-call-uwsgi-fork-hooks" not in uwsgi.opt
    )


def stops_threads() -> bool:
    """Whether threads run only while a request is being answered."""
    uwsgi = _uwsgi()
    if uwsgi is None or _THREAD_OPTIONS & uwsgi.opt.keys():
        return False
    numbers = re.findall(r"\d+", uwsgi.version.decode("ascii", "replace"))
    return tuple(map(int, numbers[:3])) < _THREADS_BY_DEFAULT


def off_the_loop(work: Callable[[], None]) -> None:
    """Call what may wait for a disk: in a real thread where ours is one of gevent's greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        sys.modules["gevent"].get_hub().threadpool.apply(work)
    else:
        work()


def _uwsgi() -> Any:
    """Return the module that uWSGI puts into its processes; None elsewhere."""
    module = sys.modules.get("uwsgi")
    # A stub that some packages install for type checkers has no such function.
    return module if hasattr(module, "worker_id") else None
