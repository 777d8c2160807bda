"""A database with flags and segments, from which each run begins with a copy."""

from pathlib import Path

from werkzeug.test import Client

from tests.fuzz.first_database import make_first, open_app

FLAGS = ("alpha", "beta", "gamma")
SEGMENTS = ("staff", "testers")


class Template:
    """`folder` is where the copies may be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "template.db"
        self.tokens = make_first(self.file)
        self._furnish()

    def _furnish(self) -> None:
        app = open_app(self.file)
        client = Client(app)
        headers = {"Authorization": f"Bearer {self.admin_token}"}

        def call(method: str, path: str, body: object, version: int = 1) -> None:
            answer = client.open(
                f"/api/v1/{path}",
                method=method,
                json=body,
                headers={**headers, "If-Match": f'"{version}"'},
            )
            assert answer.status_code in (200, 201), answer.text

        for segment in SEGMENTS:
            condition = {"attribute": "country", "op": "in", "values": ["NL"]}
            call("PUT", f"environments/production/segments/{segment}", {"condition": condition})
        for flag in FLAGS:
            variants = {"on": True, "off": False}
            made = {"key": flag, "type": "boolean", "variants": variants, "tags": ["shop"]}
            call("POST", "flags", made)
            split = {"split": {"weights": {"on": 25_000, "off": 75_000}}}
            changes = {"enabled": True, "default_serve": split}
            call("PATCH", f"flags/{flag}/environments/production", changes)
        app.extensions["flagd_server"].close()

    @property
    def admin_token(self) -> str:
        return self.tokens.admin

    @property
    def sdk_token(self) -> str:
        return self.tokens.sdk["production"]
