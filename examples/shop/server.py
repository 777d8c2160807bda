"""Serves a Flask application over real HTTP, until a signal says stop."""

import logging
import signal
from collections.abc import Callable

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open between requests

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Leave the terminal to what matters."""


def serve(app: Flask, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve on loopback; returns after SIGTERM or SIGINT.

    Args:
        port: 0 for any that is free.
        on_ready: told the address once connections are accepted.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        on_ready(f"http://127.0.0.1:{server.server_port}")
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
