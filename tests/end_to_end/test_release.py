"""A release on a real server, seen by a real SDK: bad, back, bad again, off, and on for others."""

import time
from collections.abc import Callable, Iterator

import pytest

from flagd_sdk import FlagClient
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S

FLAG = "new-checkout"
PATH = f"/api/v1/flags/{FLAG}/environments/production"
USERS = [{"targetingKey": f"user-{number}"} for number in range(1_500)]


class Shop:
    """Serves everybody once a round; the new checkout fails where it `is_broken`."""

    def __init__(self, client: FlagClient) -> None:
        self._client = client
        self.is_broken = False

    def served(self) -> set[str]:
        """Serve rounds until one has seen no change; return the users who got the feature in it."""
        while True:
            found = set()
            before = self._client.flag_set
            for user in USERS:
                with self._client.scope(user):
                    if self._client.is_enabled(FLAG):
                        found.add(user["targetingKey"])
                        if self.is_broken:
                            self._client.fail(RuntimeError("the basket is empty"))
            if self._client.flag_set is before:
                return found

    def serve_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline, "it never came to be so"
            self.served()
            time.sleep(0.1)


@pytest.fixture
def shop(server: FlagServer) -> Iterator[Shop]:
    token = server.sdk_tokens["production"]
    # The server shall see all failures: its own breaker would spare it those after the tenth.
    with FlagClient(
        server.url, token, service="shop", cache_dir=None, local_breaker=False
    ) as client:
        assert client.wait_until_ready(DEADLINE_S)
        yield Shop(client)


def test_users_get_back_what_was_healthy_then_nothing_and_others_go_first(
    server: FlagServer, shop: Shop
) -> None:
    server.create_flag(FLAG, guard={"on_breach": "rollback"})
    stages = [{"percent": 5, "bake_time_s": 1}, {"percent": 25, "bake_time_s": 600}]
    started = server.call("POST", f"{PATH}/rollouts", {"stages": stages}).json()
    rollout = f"{PATH}/rollouts/{started['id']}"

    few: set[str] = set()

    def is_raised() -> bool:
        served = shop.served()
        if 0 < len(served) < 0.1 * len(USERS):
            few.update(served)
        return len(served) > 0.2 * len(USERS)

    shop.serve_until(is_raised)
    many = shop.served()
    assert few < many

    shop.is_broken = True
    shop.serve_until(lambda: server.call("GET", PATH).json()["action"] == "rollback")
    shop.is_broken = False
    # None of them has been seen if the machine paused for as long as they were alone.
    shop.serve_until(
        lambda: (back := shop.served()) == few or (not few and 0 < len(back) < 0.1 * len(USERS))
    )
    shop.serve_until(lambda: server.call("GET", rollout).json()["state"] == "rolled_back")

    shop.is_broken = True
    shop.serve_until(lambda: server.call("GET", PATH).json()["kill"] is not None)
    shop.is_broken = False
    shop.serve_until(lambda: shop.served() == set())
    reports = server.call("GET", f"{PATH}/evidence").json()["reports"]
    assert [report["action"] for report in reports] == ["kill", "rollback"]

    kill = server.call("GET", PATH).json()["kill"]["id"]
    body = {"kill": kill, "reason": "mended", "start_percent": 5, "leave_out_exposed": True}
    assert server.call("POST", f"{PATH}/restore", body).status_code == 200
    shop.serve_until(lambda: len(shop.served()) > 0)
    assert shop.served().isdisjoint(many)
