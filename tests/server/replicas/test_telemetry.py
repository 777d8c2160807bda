"""Telemetry may come to any server: counted once, in order, and judged by the one that leads."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import time
from typing import Any

from flagd_server.services.inbox import SUMMARY
from flagd_server.storage.replicas import InboxItem
from flagd_server.storage.telemetry_records import LatencyRow
from tests.server.replicas.replicas import ENVIRONMENT, FLAG, FLAG_PATH, Replica, Replicas, cell
from tests.waiting import eventually

BAD = "error:PaymentError"


def exposures(replica: Replica) -> int:
    with replica.storage.read() as reader:
        return sum(row.exposures for row in reader.counts(ENVIRONMENT, FLAG, 0))


def inbox(replica: Replica) -> list[InboxItem]:
    with replica.storage.read() as reader:
        return reader.inbox(1_000)


def evidence(replica: Replica) -> list[dict[str, Any]]:
    with replica.storage.read() as reader:
        return [json.loads(row.document) for row in reader.list_evidence(ENVIRONMENT, FLAG)]


def report_bad(replica: Replica, process: int, sequence: int, version: int) -> None:
    """Report users of whom those with the feature fail."""
    first = 10_000 * process + 100 * sequence
    failing = {BAD: list(range(first, first + 8))}
    replica.report(
        f"i-{process}",
        sequence,
        cell("on", version, exposures=10, failing=failing),
        cell("off", version, exposures=30),
    )


def is_killed(replica: Replica) -> bool:
    return bool(replica.admin.get(FLAG_PATH).json["kill"])


def test_a_summary_of_a_follower_is_counted_by_the_leader(replicas: Replicas) -> None:
    version = replicas.release()
    answer = replicas.follower.report("i-1", 1, cell("on", version), cell("off", 999))
    assert (answer["accepted"], answer["refused"]) == (2, []), "it can't tell which are refused"
    eventually(lambda: exposures(replicas.leader) == 10)
    assert inbox(replicas.leader) == []


def test_the_summaries_of_a_process_are_counted_in_order_wherever_they_come(
    replicas: Replicas,
) -> None:
    version = replicas.release()
    for sequence in range(1, 21):
        replicas.all[sequence % 2].report("i-1", sequence, cell("on", version))
    eventually(lambda: exposures(replicas.leader) == 200)


def test_what_is_sent_again_to_another_server_is_counted_once(replicas: Replicas) -> None:
    version = replicas.release()
    for replica in (replicas.follower, replicas.leader, replicas.follower):
        replica.report("i-1", 1, cell("on", version))
    replicas.follower.report("i-1", 2, cell("on", version))
    eventually(lambda: exposures(replicas.leader) == 20)
    assert inbox(replicas.leader) == []


def test_without_a_leader_telemetry_is_kept_and_counted_when_there_is_one(
    replicas: Replicas,
) -> None:
    version = replicas.release()
    first, second = replicas.all
    replicas.joined.elect(None)
    for sequence in (1, 2):
        replicas.all[sequence % 2].report("i-1", sequence, cell("on", version))
    assert len(inbox(first)) == 2
    replicas.elect(second)
    eventually(lambda: exposures(first) == 20)


def test_a_bad_flag_is_killed_once_with_one_report_while_the_leader_changes(
    replicas: Replicas,
) -> None:
    version = replicas.release()
    streams = [each.stream() for each in replicas.all]

    def report(process: int) -> None:
        for sequence in range(1, 9):
            report_bad(replicas.all[(process + sequence) % 2], process, sequence, version)

    def change() -> None:
        for n in range(4):
            replicas.elect(replicas.all[(n + 1) % 2])

    with ThreadPoolExecutor(5) as threads:
        done = [threads.submit(report, process) for process in range(4)]
        changed = threads.submit(change)
        for each in (*done, changed):
            each.result()
    eventually(lambda: is_killed(replicas.leader))
    eventually(lambda: inbox(replicas.leader) == [])
    assert len(evidence(replicas.leader)) == 1
    assert exposures(replicas.leader) == 4 * 8 * 40
    for stream in streams:
        while True:
            name, data, _ = stream.next()
            if name == "flag" and json.loads(data)["flag"]["kill"] is not None:
                break


def test_a_new_leader_goes_on_where_the_old_one_was(replicas: Replicas) -> None:
    """Its evidence is that of one server that has heard all of it."""
    version = replicas.release(share=50_000)
    for sequence in range(1, 7):
        failing = {BAD: [sequence]}
        cells = cell("on", version, failing=failing), cell("off", version, exposures=10)
        replicas.leader.report("i-1", sequence, *cells)
        replicas.elect(replicas.follower)
    eventually(lambda: len(inbox(replicas.leader)) == 0)
    replicas.leader.report("i-1", 7)  # by then it has forgotten what it knew of an earlier term
    leader = replicas.leader.services.guarding
    e_values = leader.examine(ENVIRONMENT, FLAG, lambda guard: guard.highest_e_value)
    replicas.elect(replicas.follower)
    replicas.leader.report("i-1", 8)
    again = replicas.leader.services.guarding
    assert again.examine(ENVIRONMENT, FLAG, lambda guard: guard.highest_e_value) == e_values
    assert e_values is not None
    assert e_values > 1.0


def test_every_server_shows_the_guard_as_it_stands(replicas: Replicas) -> None:
    version = replicas.release()
    for sequence in range(1, 4):
        replicas.leader.report(
            "i-1", sequence, cell("on", version, failing={BAD: [sequence]}), cell("off", version)
        )

        def shown(replica: Replica) -> Any:
            running = replica.services.guarding.running_evidence(ENVIRONMENT, FLAG)
            assert running is not None
            return running

        eventually(lambda: shown(replicas.follower) == shown(replicas.leader))
    assert replicas.follower.services.guarding.states(0.0)


def measure(replicas: Replicas) -> None:
    """Have the service measured for long enough to have thresholds."""
    minute = int(time() // 60)
    with replicas.leader.storage.transaction() as tx:
        tx.add_control_latencies(
            LatencyRow(ENVIRONMENT, "shop", minute - ago, {100: 900, 200: 100})
            for ago in range(70, 100)
        )


def test_a_follower_tells_sdks_what_the_leader_would(replicas: Replicas) -> None:
    version = replicas.release(share=50_000)
    measure(replicas)
    for process in range(3):
        replicas.leader.report(f"i-{process}", 1, cell("on", version), cell("off", version))
    hints = "slow_over_s", "exposed_below", "processes"
    told = eventually(
        lambda: (t := replicas.leader.report("i-1", 2))["processes"] == 3 and t, every_s=0.3
    )
    assert told["slow_over_s"]

    def by_the_follower() -> dict[str, Any]:
        answer = replicas.follower.report("i-1", 2)
        return {name: answer[name] for name in hints}

    eventually(lambda: by_the_follower() == {name: told[name] for name in hints}, every_s=0.3)


def test_a_server_that_comes_later_learns_what_to_tell(replicas: Replicas) -> None:
    replicas.release(share=50_000)
    measure(replicas)
    told = replicas.leader.report("i-1", 1)["slow_over_s"]
    late = replicas.start()
    sequence = iter(range(2, 1_000))

    def by_the_late_one() -> Any:
        replicas.leader.report("i-1", next(sequence))
        return late.report("i-1", next(sequence))["slow_over_s"]

    eventually(lambda: by_the_late_one() == told != {}, every_s=0.1)


def test_a_local_kill_is_lifted_by_whichever_server_its_process_reports_to(
    replicas: Replicas,
) -> None:
    version = replicas.release()
    kill = {
        "id": "lk-1",
        "at": "2026-11-23T12:00:00.000Z",
        "flag": FLAG,
        "config_version": version,
        "split": "default",
        "treatment": "on",
        "control": "off",
        "kind": BAD,
        "log_e_value": 12.0,
        "log_threshold": 11.0,
        "in_treatment": 12,
        "in_control": 0,
        "expected_share": 0.25,
    }
    first = replicas.follower.report("i-1", 1, local_kills=[kill])
    assert first["lifted"] == []
    path = f"{FLAG_PATH}/local-kills"
    eventually(lambda: replicas.follower.admin.get(path).json["processes"] == 1)
    alarms = f"/api/v1/environments/{ENVIRONMENT}/alarms"
    eventually(lambda: replicas.follower.admin.get(alarms).json["items"])
    lifted = replicas.follower.admin.post(f"{path}/lift", {"kills": ["lk-1"], "reason": "tried"})
    assert lifted.status_code == 200, lifted.text
    assert replicas.follower.report("i-1", 2, local_kills=[kill])["lifted"] == ["lk-1"]


def test_what_can_not_be_worked_off_is_set_aside(replicas: Replicas) -> None:
    version = replicas.release()
    strange = InboxItem("strange", SUMMARY, "{}", datetime.now(UTC))
    with replicas.follower.storage.transaction() as tx:
        tx.put_inbox([strange])
        tx.announce("inbox", {})
    replicas.follower.report("i-1", 1, cell("on", version))
    eventually(lambda: exposures(replicas.leader) == 10)
    assert inbox(replicas.leader) == []
