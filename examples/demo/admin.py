"""What a product owner does, through the admin API: create, release, look at the evidence."""

from typing import Any, cast

import requests

from examples.demo.processes import ENVIRONMENT
from examples.shop.app import NEW_CHECKOUT

_TIMEOUT_S = 40.0
WEIGHTS = 100_000
"""What the weights of a split sum to."""


class AdminApi:
    """The flag of the demo in the environment of the demo.

    Every method raises `requests.RequestException` where the server refuses or is not there.
    """

    def __init__(self, url: str, token: str) -> None:
        self._root = f"{url}/api/v1/flags"
        self.flag_url = f"{self._root}/{NEW_CHECKOUT}/environments/{ENVIRONMENT}"
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy for the outside world has no business here
        self._session.headers["Authorization"] = f"Bearer {token}"

    def create_flag(self) -> None:
        """Create the flag; it is off everywhere until someone releases it."""
        self._request(
            "POST",
            self._root,
            {
                "key": NEW_CHECKOUT,
                "type": "boolean",
                "variants": {"on": True, "off": False},
                "description": "Charge at once instead of sending an invoice",
                "owner": "shop team",
                "lifetime": "temporary",
                "expires_at": "2030-01-01T00:00:00Z",
            },
        )

    def release(self, percent: int) -> None:
        """Serve the new checkout to this part of the visitors."""
        seen = self._session.get(self.flag_url, timeout=_TIMEOUT_S)
        seen.raise_for_status()
        on = WEIGHTS * percent // 100
        self._request(
            "PATCH",
            self.flag_url,
            {
                "enabled": True,
                "default_serve": {"split": {"weights": {"on": on, "off": WEIGHTS - on}}},
                "comment": f"release at {percent} %",
            },
            # Nobody may have changed the flag since it was looked at.
            {"If-Match": seen.headers["ETag"]},
        )

    def kill(self) -> dict[str, Any] | None:
        """Return who killed the flag, when and why; None while it is not killed."""
        return cast("dict[str, Any] | None", self._request("GET", self.flag_url)["kill"])

    def receipt(self, wait_s: float) -> dict[str, Any]:
        """Return how many processes have confirmed the kill that stands.

        A kill is idempotent: pressing it again changes nothing, and answers with the receipt.
        """
        body = {"reason": "asking for the receipt"}
        answer = self._request("POST", f"{self.flag_url}/kill?wait_s={wait_s:g}", body)
        return {**answer["receipt"], "sequence": answer["sequence"], "already": answer["already"]}

    def running_evidence(self) -> dict[str, Any] | None:
        """Return what the guard knows now; None where it watches nothing."""
        listed = self._request("GET", f"{self.flag_url}/evidence")
        return cast("dict[str, Any] | None", listed["running"])

    def evidence(self, evidence_id: str) -> dict[str, Any]:
        """Return the report behind a kill."""
        return self._request("GET", f"{self.flag_url}/evidence/{evidence_id}")

    def evidence_page(self, evidence_id: str) -> str:
        """Return the same report as a page for people."""
        path = f"{self.flag_url}/evidence/{evidence_id}"
        answer = self._session.get(path, params={"format": "text"}, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        return answer.text

    def _request(
        self,
        method: str,
        url: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        answer = self._session.request(method, url, json=body, headers=headers, timeout=_TIMEOUT_S)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {url}: {answer.status_code} {answer.text[:500]}")
        return cast("dict[str, Any]", answer.json())
