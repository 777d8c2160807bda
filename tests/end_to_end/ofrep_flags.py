"""A server with a flag of each type, for those who evaluate them by OFREP."""

from typing import Any

from tests.end_to_end.flag_server import FlagServer

ON_OFF = {"on": True, "off": False}
SPLIT = {"split": {"weights": {"on": 50_000, "off": 50_000}}}
# Key → type, variants, what is served.
FLAGS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "new-checkout": ("boolean", ON_OFF, SPLIT),
    "banner": ("string", {"blue": "blå", "none": ""}, {"variant": "blue"}),
    "limit": ("integer", {"many": 42, "none": 0}, {"variant": "many"}),
    "factor": ("float", {"whole": 1, "half": 0.5}, {"variant": "whole"}),
    "layout": ("object", {"wide": {"columns": [1, 2]}, "none": {}}, {"variant": "wide"}),
    "sizes": ("object", {"all": ["S", "M"], "none": []}, {"variant": "all"}),
}
# The server with an allowance so small that a test can use it up.
RATIONED = (
    "-c",
    "import sys\n"
    "from flagd_server.cli import main\n"
    "from flagd_server.domain.allowance import Rate\n"
    "from flagd_server.services import evaluation\n"
    "evaluation.EVALUATIONS_OF_TOKEN = Rate(0.001, 2)\n"
    "sys.exit(main())",
)


def create_flags(server: FlagServer) -> None:
    for key, (kind, variants, served) in FLAGS.items():
        document = {"key": key, "type": kind, "variants": variants}
        assert server.call("POST", "/api/v1/flags", document).status_code == 201
        server.configure(key, enabled=True, default_serve=served)


def create_token(server: FlagServer, kind: str = "server") -> str:
    body = {"scope": "ofrep", "name": "page", "environment": "production", "kind": kind}
    return str(server.call("POST", "/api/v1/tokens", body).json()["text"])
