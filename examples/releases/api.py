"""The admin API, as a pipeline calls it."""

import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import requests

ENVIRONMENT = "production"
_TIMEOUT_S = 20.0
T = TypeVar("T")


class Api:
    """Every method raises `requests.HTTPError` where the server refuses."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        answer = self._session.request(
            method, f"{self.url}{path}", json=body, headers=headers, timeout=_TIMEOUT_S
        )
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return cast("dict[str, Any]", answer.json())

    def create(self, flag: str, **guard: Any) -> None:
        """Create a boolean flag with a policy."""
        variants = {"on": True, "off": False}
        self.ask("POST", "/api/v1/flags", {"key": flag, "type": "boolean", "variants": variants})
        self.ask("PATCH", place(flag), {"guard": guard}, **{"If-Match": '"1"'})

    def percent(self, flag: str) -> float:
        """Return the share that has the flag now."""
        found = self.ask("GET", place(flag))
        serve = found["default_serve"]
        if not found["enabled"] or found["kill"] is not None or "split" not in serve:
            return 0.0
        return float(serve["split"]["weights"]["on"]) / 1_000

    def rollout(self, flag: str) -> dict[str, Any]:
        """Return the flag's newest rollout."""
        items: list[dict[str, Any]] = self.ask("GET", f"{place(flag)}/rollouts")["items"]
        return items[0]


def place(flag: str) -> str:
    return f"/api/v1/flags/{flag}/environments/{ENVIRONMENT}"


def wait_for(look: Callable[[], T | None], within_s: float, what: str) -> T:
    """Return what is looked for as soon as it is there.

    Raises:
        TimeoutError: it did not come in time.
    """
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {within_s:.0f} s")
        time.sleep(0.25)
