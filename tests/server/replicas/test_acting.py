"""What only the leader does, and what every server says of it."""

import json
import threading
from datetime import UTC, datetime
from typing import Any

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.guard.blindness import NO_SUMMARIES, Blind
from flagd_server.hub.base import Subscription
from flagd_server.services.blind_watch import TOLD_AFTER_S, BlindWatch
from flagd_server.services.guarding import WatchState
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import Brake
from tests.server.replicas.replicas import ENVIRONMENT, FLAG, FLAG_PATH, Replica, Replicas, cell
from tests.server.replicas.test_telemetry import evidence, is_killed, report_bad
from tests.waiting import eventually

BRAKE = f"/api/v1/environments/{ENVIRONMENT}/brake"


def engage_brake(replica: Replica) -> None:
    with replica.storage.transaction() as tx:
        tx.engage_brake(Brake(ENVIRONMENT, datetime.now(UTC), "too many"))


def test_a_brake_is_released_at_any_server_and_the_leader_acts(replicas: Replicas) -> None:
    version = replicas.release()
    engage_brake(replicas.leader)
    for sequence in range(1, 6):
        report_bad(replicas.leader, 1, sequence, version)
    waiting = replicas.follower.admin.get(BRAKE)
    eventually(lambda: replicas.follower.admin.get(BRAKE).json["waiting"] == [FLAG], every_s=0.2)
    assert waiting.json["engaged"] is True
    released = replicas.follower.admin.delete(BRAKE)
    assert released.json == {"acted_on": [FLAG]}
    assert is_killed(replicas.follower)
    assert [each["action"] for each in evidence(replicas.leader)] == ["kill", "braked"]
    assert replicas.follower.admin.delete(BRAKE).status_code == 404


def test_a_brake_that_nobody_can_release_stays_engaged_and_it_is_said(replicas: Replicas) -> None:
    replicas.release()
    follower = replicas.follower
    engage_brake(follower)
    replicas.joined.elect(None)
    follower.services.brakes._requests._answer_within_s = 0.1
    refused = follower.admin.delete(BRAKE)
    assert refused.status_code == 503
    replicas.elect(follower)
    assert follower.admin.get(BRAKE).json["engaged"] is True


def test_a_kill_is_confirmed_by_processes_of_every_server(replicas: Replicas) -> None:
    version = replicas.release()
    replicas.leader.report("i-a", 1, cell("on", version))
    replicas.follower.report("i-b", 1, cell("on", version))
    for replica in replicas.all:
        eventually(lambda r=replica: r.services.receipts.known(ENVIRONMENT) == {"i-a", "i-b"})
    answers: list[Any] = []

    def kill() -> None:
        answers.append(
            replicas.follower.admin.post(f"{FLAG_PATH}/kill?wait_s=30", {"reason": "a customer"})
        )

    killing = threading.Thread(target=kill)
    killing.start()
    eventually(lambda: is_killed(replicas.leader))
    # Not that of the leader's flags, which it may not have read again yet.
    sequence = replicas.leader.admin.get(f"{FLAG_PATH}/kill").json["sequence"]
    replicas.leader.report("i-a", 2, applied_sequence=sequence)
    replicas.follower.report("i-b", 2, applied_sequence=sequence)
    killing.join()
    receipt = answers[0].json["receipt"]
    assert (receipt["processes"], receipt["confirmed"]) == (2, 2)
    for replica in replicas.all:
        eventually(
            lambda r=replica: r.admin.get(f"{FLAG_PATH}/kill").json["receipt"]["confirmed"] == 2
        )
        eventually(lambda r=replica: r.services.receipts.missing() == {})


def test_a_process_with_a_stream_is_known_to_the_other_server(replicas: Replicas) -> None:
    stream = replicas.follower.services.hub.stream(Subscription(ENVIRONMENT, "tok-1", "i-quiet"))
    next(stream)
    late = replicas.start()
    eventually(lambda: late.services.receipts.known(ENVIRONMENT) == {"i-quiet"})
    stream.close()


def test_a_rollout_goes_on_under_the_next_leader(replicas: Replicas) -> None:
    replicas.release(share=0)
    plan = {
        "stages": [
            {"percent": 1, "bake_time_s": 1},
            {"percent": 5, "bake_time_s": 1},
            {"percent": 25, "bake_time_s": 0},
        ]
    }
    started = replicas.follower.admin.post(f"{FLAG_PATH}/rollouts", plan)
    assert started.status_code == 201, started.text
    rollout = f"{FLAG_PATH}/rollouts/{started.json['id']}"
    sequence = 0

    def report() -> None:
        nonlocal sequence
        sequence += 1
        version = replicas.leader.admin.get(FLAG_PATH).json["version"]
        cells = cell("on", version, exposures=500), cell("off", version, exposures=1_500)
        replicas.all[sequence % 2].report("i-1", sequence, *cells)

    def state() -> Any:
        report()
        return replicas.follower.admin.get(rollout).json

    # It may be further by the time it is looked at.
    eventually(lambda: (state()["stage"] or 0) >= 1, every_s=0.3)
    replicas.elect(replicas.follower)
    done = eventually(lambda: (s := state())["state"] == "completed" and s, every_s=0.3)
    moves = [each["move"] for each in done["moves"]]
    assert moves == ["start", "advance", "advance", "complete"]


def test_a_happening_is_sent_once_by_the_leader_whoever_wrote_it(replicas: Replicas) -> None:
    replicas.release()
    sent: dict[int, list[str]] = {0: [], 1: []}
    for number, replica in enumerate(replicas.all):
        outbox = replica.services.kills._happenings

        class Poster:
            def __init__(self, number: int) -> None:
                self.number = number

            def post(self, url: str, body: bytes, headers: Any, timeout_s: float) -> Any:
                sent[self.number].append(json.loads(body)["id"])
                return 200, b""

        outbox._poster = Poster(number)  # type: ignore[attr-defined]
    put = replicas.leader.admin.put(
        f"/api/v1/environments/{ENVIRONMENT}/webhooks/chat", {"url": "http://8.8.8.8/hook"}
    )
    assert put.status_code == 201, put.text
    replicas.follower.services.kills.kill(
        ENVIRONMENT, FLAG, source=KillSource.OPERATOR, reason="x", actor="ann"
    )
    leader = replicas.all.index(replicas.leader)
    eventually(lambda: len(sent[leader]) == 1)
    assert sent[1 - leader] == []


def test_blindness_is_told_once_whoever_leads(replicas: Replicas) -> None:
    told = []

    class Told:
        def tell(self, tx: Transaction, happening: object) -> None:
            told.append(happening)

    blind = WatchState(ENVIRONMENT, FLAG, (Blind(NO_SUMMARIES, "silence", "default"),), False)
    publisher = replicas.leader.services.kills._publisher
    for replica in replicas.all:
        watch = BlindWatch(replica.storage, publisher, lambda at: [blind], Told())
        watch.tick(0.0)
        watch.tick(TOLD_AFTER_S)
    assert len(told) == 1
