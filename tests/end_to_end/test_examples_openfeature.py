"""Runs the OpenFeature example as its documentation says, against a real server."""

import os
import signal

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import ServerProcess

KEY = "new-checkout"


def test_the_openfeature_application_hears_of_a_change_and_serves_it(server: FlagServer) -> None:
    server.create_flag(KEY, default_serve={"variant": "off"})
    settings = {"FLAGD_URL": server.url, "FLAGD_TOKEN": server.sdk_tokens["production"]}
    app = ServerProcess(["-m", "examples.integrations.openfeature_app"], {**os.environ, **settings})
    try:
        app.wait_for(r"the old checkout\nbought: 9.5 with {'new-checkout': 'off'}\n")
        split = {"split": {"weights": {"on": 100_000, "off": 0}}}
        server.configure(KEY, default_serve=split)
        app.wait_for(
            r"changed: new-checkout\nthe new checkout\nbought: 9.5 with {'new-checkout': 'on'}\n"
        )
        server.kill_flag(KEY)
        app.wait_for(r"new checkout\n.*\nchanged: new-checkout\nthe old checkout\n")
        app.signal(signal.SIGTERM)
        assert app.wait() == 0
    finally:
        app.stop()
    assert "Traceback" not in app.log
