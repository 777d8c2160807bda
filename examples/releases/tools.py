"""What Flagger and Argo Rollouts send, as they send it, and what they make of the answers."""

from typing import Any

import requests

from examples.releases.api import ENVIRONMENT, Api

GATE = "before-more-traffic"
_TIMEOUT_S = 10.0


class Tools:
    """Both of them, with the least rights that they need."""

    def __init__(self, api: Api) -> None:
        self._api = api
        token = {"name": "delivery tools", "scope": "read"}
        self._token = str(api.ask("POST", "/api/v1/tokens", token)["text"])

    def make_gate(self, flag: str) -> None:
        """Let them go on only while the guard of a flag sees and is quiet."""
        gate = {"description": "Before a canary gets more traffic", "guard": {"flags": [flag]}}
        self._api.ask("PUT", f"/api/v1/environments/{ENVIRONMENT}/gates/{GATE}", gate)

    def flagger(self, hook: str) -> int:
        """Return the status that Flagger gets; it sends no authorisation and no type."""
        body = {
            "name": "shop",
            "namespace": "production",
            "phase": "Progressing",
            "checksum": "85d557f47b",
            "metadata": {"hook": hook, "token": self._token},
        }
        url = f"{self._api.url}/hooks/flagger/{ENVIRONMENT}/{GATE}"
        return requests.post(url, json=body, timeout=_TIMEOUT_S).status_code

    def argo(self) -> dict[str, Any]:
        """Return what Argo's web metric reads at `{$.data}`."""
        url = f"{self._api.url}/hooks/argo/{ENVIRONMENT}/{GATE}"
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = requests.get(url, headers=headers, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data
