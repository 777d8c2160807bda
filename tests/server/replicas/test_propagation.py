"""A change made on any server reaches the processes of every server, as the same bytes."""

import json
import threading

import pytest

from flagd_server.domain.configuration import JsonObject
from flagd_server.services import tokens
from flagd_server.services.notices import Topic
from tests.server.replicas.replicas import ENVIRONMENT, FLAG, FLAG_PATH, Replicas
from tests.waiting import eventually


def test_a_change_is_sent_and_answered_alike_by_the_server_that_did_not_make_it(
    replicas: Replicas,
) -> None:
    streams = [each.stream() for each in replicas.all]
    for stream in streams:
        assert stream.next()[0] == "flags"
    version = replicas.release()
    off = replicas.follower.admin.patch(FLAG_PATH, {"enabled": False}, if_match=version)
    assert off.status_code == 200
    events = [[stream.next() for _ in range(3)] for stream in streams]
    assert events[0] == events[1]
    assert [name for name, _, _ in events[0]] == ["flag"] * 3
    assert json.loads(events[0][-1][1])["flag"]["enabled"] is False
    assert replicas.all[0].flags() == replicas.all[1].flags()


def test_writers_on_both_servers_are_heard_by_both_in_one_order(replicas: Replicas) -> None:
    replicas.release()
    streams = [each.stream() for each in replicas.all]
    for stream in streams:
        stream.next()
    rounds = 5

    def write(server: int) -> None:
        admin = replicas.all[server].admin
        for n in range(rounds):
            key = f"f-{server}-{n}"
            admin.post(
                "/api/v1/flags",
                {"key": key, "type": "boolean", "variants": {"on": True, "off": False}},
            )

    writers = [threading.Thread(target=write, args=[server]) for server in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    events = [[stream.next() for _ in range(2 * rounds)] for stream in streams]
    assert events[0] == events[1]
    sequences = [int(event_id or 0) for _, _, event_id in events[0]]
    assert sequences == sorted(sequences)
    eventually(lambda: replicas.all[0].flags() == replicas.all[1].flags())


def test_segments_and_new_environments_are_known_on_every_server(replicas: Replicas) -> None:
    condition = {"attribute": "country", "op": "in", "values": ["NL"]}
    put = replicas.follower.admin.put(
        f"/api/v1/environments/{ENVIRONMENT}/segments/dutch", {"condition": condition}
    )
    assert put.status_code == 201, put.text
    made = replicas.leader.admin.post("/api/v1/environments", {"key": "qa"})
    assert made.status_code == 201, made.text

    def held(environment: str) -> list[object]:
        return [each.services.snapshots.sequence(environment) for each in replicas.all]

    eventually(lambda: len(set(held("qa"))) == 1 and None not in held("qa"))
    eventually(lambda: replicas.all[0].flags() == replicas.all[1].flags())
    assert json.loads(replicas.leader.flags()[1])["segments"] == {"dutch": condition}
    assert replicas.follower.admin.delete("/api/v1/environments/qa").status_code == 204
    eventually(lambda: held("qa") == [None, None])


def test_who_missed_notices_reads_all_anew_and_sends_it_whole(replicas: Replicas) -> None:
    version = replicas.release()
    follower = replicas.follower
    stream = follower.stream()
    stream.next()
    before = follower.flags()
    follower.storage.is_deaf = True
    replicas.leader.admin.patch(FLAG_PATH, {"enabled": False}, if_match=version)
    assert follower.flags() == before, "nobody has told it"
    follower.storage.come_back()
    name, data, _ = stream.next()
    assert (name, data.encode()) == ("flags", replicas.leader.flags()[1])
    assert follower.flags() == replicas.leader.flags()


def test_a_change_that_can_not_be_read_is_sent_when_it_can(replicas: Replicas) -> None:
    version = replicas.release()
    follower = replicas.follower
    stream = follower.stream()
    stream.next()

    has_tried = threading.Event()

    def break_reading(topic: str, document: JsonObject) -> None:
        if topic != Topic.FLAG:
            heard(topic, document)
            return
        follower.storage._on_notice = heard
        follower.storage.is_away = True
        heard(topic, document)
        has_tried.set()

    heard = follower.storage._on_notice
    follower.storage._on_notice = break_reading
    replicas.leader.admin.patch(FLAG_PATH, {"enabled": False}, if_match=version)
    assert has_tried.wait(30)
    follower.storage.is_away = False
    assert stream.next()[0] == "flags"
    assert follower.flags() == replicas.leader.flags()


@pytest.fixture
def never_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers learn of tokens and gates from each other alone; ask for it before the servers."""
    monkeypatch.setattr(tokens, "_LOOK_EVERY_S", 3_600.0)


@pytest.mark.usefixtures("never_looking")
def test_a_token_is_known_and_revoked_on_every_server_at_once(replicas: Replicas) -> None:
    made = replicas.leader.admin.post(
        "/api/v1/tokens", {"scope": "sdk", "name": "shop", "environment": ENVIRONMENT}
    )
    sdk = replicas.follower.sdk.by(made.json["text"])
    assert sdk.get("/sdk/v1/flags").status_code == 200
    replicas.leader.admin.delete(f"/api/v1/tokens/{made.json['id']}")
    eventually(lambda: sdk.get("/sdk/v1/flags").status_code == 401)


def test_a_gate_that_changed_is_judged_anew_wherever_it_is_asked_about(replicas: Replicas) -> None:
    replicas.release()
    path = f"/api/v1/environments/{ENVIRONMENT}/gates/canary"
    replicas.leader.admin.put(path, {"approval": True})
    verdicts = replicas.follower.services.gate_verdicts
    verdicts._every_s = 3_600.0
    eventually(lambda: "approv" in verdicts.is_green(ENVIRONMENT, "canary")[1])
    replicas.leader.admin.post(f"{path}/approve", {"reason": "looks good", "valid_for_s": 600})
    eventually(lambda: verdicts.is_green(ENVIRONMENT, "canary")[0])
    assert FLAG in replicas.follower.admin.get("/api/v1/flags").text
