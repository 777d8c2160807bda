"""Serves the application with gunicorn: one process that listens, and one worker.

What becomes of connections is in `worker`.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from typing import Any, cast

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http import wsgi

from flagd_server.errors import SettingsError
from flagd_server.http_headers import security_headers
from flagd_server.serving.heads import MAX_HEADER_BYTES, MAX_HEADERS, MAX_REQUEST_LINE_BYTES
from flagd_server.serving.response import Response
from flagd_server.serving.worker import Worker, WsgiApplication

DEFAULT_THREADS = 16
# Connections that wait for the accept loop: what a restart brings back at once.
_BACKLOG = 4096
# Connections of ordinary requests, most of them kept alive; streams are not among them.
_MAX_CONNECTIONS = 4096
# Telemetry comes every 10 s at the latest; its connection should outlive the pause.
_KEEPALIVE_S = 20
_GRACEFUL_S = 10
# Loading may migrate the database first.
_UNRESPONSIVE_S = 60
_M_ARENA_MAX = -8  # of malloc.h


class _Arbiter(Arbiter):  # type: ignore[misc]
    """One worker, started again if it dies. TERM, INT and HUP stop it; the second time at once."""

    _is_stopping = False

    def signal(self, sig: int, frame: object) -> None:
        if self._is_stopping and sig in (signal.SIGTERM, signal.SIGHUP):
            sig = signal.SIGQUIT
        super().signal(sig, frame)

    def stop(self, graceful: bool = True) -> None:
        self._is_stopping = True
        super().stop(graceful)

    def _stop_gracefully(self) -> None:
        raise StopIteration

    handle_int = handle_hup = _stop_gracefully

    def _ignore(self) -> None:
        """A second worker, for a moment or for good, would not hear what the first announces."""

    handle_ttin = handle_ttou = handle_usr2 = handle_winch = _ignore


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's complaints, left to whoever has set up logging."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, app_factory: Callable[[], WsgiApplication], options: dict[str, object]):
        self._app_factory = app_factory
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> WsgiApplication:
        return self._app_factory()


def serve(
    app_factory: Callable[[], WsgiApplication],
    *,
    host: str,
    port: int,
    threads: int = DEFAULT_THREADS,
    say: Callable[[str], None] | None = None,
    behind_tls: bool = False,
) -> None:
    """Serve until a signal says stop, then leave the process through SystemExit.

    Args:
        app_factory: called in the process that serves, again after a crash. The caller holds no
            thread and no open database at this point, for the process forks.
        host: name or address to listen on.
        port: 0 for any that is free; "listening on http://…" tells which.
        threads: requests served at once. Streams take none.
        say: is told where it listens, and that it stopped; None for a line on standard error.
        behind_tls: see `Settings`.

    Raises:
        SettingsError: the address can't be listened on.
        SystemExit: code 0 after a stop, another where the application could not be loaded.
    """
    tell = say or _say
    descriptors = _raise_descriptor_limit()
    _share_heaps()
    listener = _listen(host, port)
    url = _url_of(listener)
    wsgi.SERVER = "flagd-server"  # what is underneath is nobody's business
    wsgi.util.http_date = _http_date
    wsgi.Response = Response
    Worker.headers = security_headers(is_behind_tls=behind_tls)
    options: dict[str, object] = {
        "bind": f"fd://{listener.detach()}",
        "backlog": _BACKLOG,
        "workers": 1,
        "worker_class": Worker,
        "threads": threads,
        "worker_connections": min(_MAX_CONNECTIONS, descriptors // 4),
        "keepalive": _KEEPALIVE_S,
        "graceful_timeout": _GRACEFUL_S,
        "timeout": _UNRESPONSIVE_S,
        "loglevel": "warning",
        "logger_class": _Log,
        # Who stands in front is for the application to know, by its settings: whoever asks is
        # believed nothing, and so needn't be looked up in a list for each request.
        "forwarded_allow_ips": "*",
        "secure_scheme_headers": {},
        "forwarder_headers": "",
        "limit_request_line": MAX_REQUEST_LINE_BYTES,
        "limit_request_fields": MAX_HEADERS,
        "limit_request_field_size": MAX_HEADER_BYTES,
        "control_socket_disable": True,
        "post_worker_init": lambda worker: tell(
            f"{'listening' if worker.age == 1 else 'listening again'} on {url}"
        ),
        "on_exit": lambda arbiter: tell("stopped"),
    }
    if os.access("/dev/shm", os.W_OK):  # noqa: S108 - a slow disk must not look like a dead worker
        options["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
    _Arbiter(_Application(app_factory, options)).run()


def _raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one and return it; each stream needs a descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _share_heaps() -> None:
    """Have the threads allocate from two heaps.

    glibc gives each thread one of its own, and what one thread frees no other takes: what 16 of
    them once needed at their peaks adds up and stays. The interpreter lets one run at a time, so
    there is nothing to win by it.
    """
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _http_date() -> str:
    """Return the present for a `Date` header; gunicorn would write it anew for every answer."""
    return _http_date_of(int(time.time()))


@lru_cache(maxsize=1)
def _http_date_of(second: int) -> str:
    return formatdate(second, usegmt=True)


def _listen(host: str, port: int) -> socket.socket:
    """Bind here: gunicorn would try five times, a second apart, and not say which port it got."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError([f"can't listen on {host} port {port}: {error.strerror}"]) from error


def _url_of(listener: socket.socket) -> str:
    host, port = cast("tuple[str, int]", listener.getsockname()[:2])
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
