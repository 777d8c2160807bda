"""A WSGI application as small as can be, run as a program: shows the seam to gunicorn bare."""

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from flagd_sdk.core.sse import encode
from flagd_server.api.reporting import TELEMETRY_PATH
from flagd_server.hub.base import Subscription
from flagd_server.hub.local import LocalHub
from flagd_server.serving import serve, worker
from flagd_server.wsgi import ANSWERS_LATER, TAKE_SOCKET, Later

PARKED_S = 2.0


class SeamApplication:
    def __init__(self) -> None:
        self.extensions = {"flagd_server": self}
        # The worker that is loading this; it freezes what exists then, and so hides it.
        self.worker = next(o for o in gc.get_objects() if isinstance(o, worker.Worker))
        self.sequence = 1
        self.hub = LocalHub(lambda environment: (self.sequence, self._event("flags")))
        self.is_stopping = threading.Event()
        self.is_let_go = threading.Event()
        self.parked: list[Later] = []

    def _event(self, name: str) -> bytes:
        return encode(name, b"{}", str(self.sequence))

    def stopping(self) -> None:
        self.is_stopping.set()

    def close(self) -> None:
        self.hub.close()
        sys.stderr.write("closed\n")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/stream":
            self.hub.attach(environ[TAKE_SOCKET](), Subscription("production", "t1"))
            start_response("200 OK", [])
            return [b"never seen"]
        if path.startswith("/park"):
            assert environ[ANSWERS_LATER]
            later = Later(partial(self._unpark, path, start_response), within_s=PARKED_S)
            self.parked.append(later)
            if path == "/parked-and-ready":
                later.ready()
            return later
        body = json.dumps(self._answer(path, environ)).encode()
        if path == "/large":
            body = b"x" * 50_000_000
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def _unpark(self, path: str, start_response: Any) -> Iterable[bytes]:
        if path == "/park-broken":
            raise ValueError("broken")
        body = b"x" * 2_000_000 if path == "/park-large" else b'"unparked"'
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, path: str, environ: dict[str, Any]) -> object:
        if path == "/echo":
            return len(environ["wsgi.input"].read())
        if path == TELEMETRY_PATH and environ["wsgi.input"].read() == b"waits":
            return self.is_let_go.wait(60)
        if path == "/let-go":
            self.is_let_go.set()
        if path == "/publish":
            self.sequence += 1
            self.hub.publish("production", self.sequence, self._event("flag"))
        if path == "/wait":
            return "released" if self.is_stopping.wait(20) else "waited in vain"
        if path == "/unpark":
            parked, self.parked = self.parked, []
            # From another thread than that of a request, as a writer's.
            threading.Thread(target=lambda: [later.ready() for later in parked]).start()
            return len(parked)
        if path == "/sleep":
            time.sleep(0.5)
        if path == "/stuck":
            time.sleep(20)
        if path == "/worker":
            return os.getpid()
        if path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        if path == "/accounts":
            # What the worker believes of its connections; this one is among them.
            return {
                "connections": self.worker.nr_conns,
                "deadlines": len(self.worker._deadlines),
                "lingering": len(self.worker._lingering),
                "parked": len(self.worker._parking),
                "streams": self.hub.statistics().streams,
            }
        return "ok"


if __name__ == "__main__":
    for argument in sys.argv[1:]:  # limits that tests can wait for
        name, _, value = argument.partition("=")
        if name == "PARKED_S":
            PARKED_S = float(value)
        else:
            setattr(worker, name, float(value))
    serve(SeamApplication, host="127.0.0.1", port=0, threads=4)
