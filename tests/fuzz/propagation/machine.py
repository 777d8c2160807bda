"""Flags are changed, killed and restored while lines break, servers restart and backups return.

Whatever the order:

- a process holds at each sequence exactly what the server published as of it, and its sequence
  never goes back;
- once a kill has been acknowledged, everything the server publishes holds the flag off, and so does
  every process that has heard of it, until someone restores it;
- in the end, with lines and server well, processes serve what the server itself serves.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
)

from flagd_sdk import Backoff, FlagClient
from tests.fuzz.propagation.network import WAIT_S, Line
from tests.fuzz.propagation.server import ENVIRONMENT, Server
from tests.fuzz.propagation.template import FLAGS, SEGMENTS, Template

USERS = [
    {"targetingKey": f"user-{number}", "country": ("NL", "BE", "DE")[number % 3]}
    for number in range(12)
]
_FAILING = 40
_LAST_WORDS_S = 0.1
_TAKING_OVER_S = 20.0
_AFTER = "after-the-backup"
_BACKOFF = Backoff(first_s=0.002, cap_s=0.01, floor_s=0.001)

flags = st.sampled_from(FLAGS)
segments = st.sampled_from(SEGMENTS)
processes = st.sampled_from((0, 1))
shares = st.sampled_from((0, 1_000, 25_000, 50_000, 100_000))


class Process:
    """An application with an SDK, which may be restarted with what its disk has kept."""

    def __init__(self, server: Server, token: str, cache: Path, poll_interval_s: float) -> None:
        """Args:
        poll_interval_s: short, and it is polls that tell after an outage; long, and the stream
            does, with what was missed.
        """
        self._server = server
        self._poll_interval_s = poll_interval_s
        self._token = token
        self._cache = cache
        self.line = Line(server.application, token)
        self._begin()

    def _begin(self) -> None:
        self.sequence = -1
        self.client = FlagClient(
            "http://server.example",
            self._token,
            service="shop",
            service_version="1",
            transport=self.line,
            cache_dir=str(self._cache),
            poll_interval_s=self._poll_interval_s,
            report_interval_s=0.5,
            backoff=_BACKOFF,
        )

    def restart(self) -> None:
        self.stop()
        self._begin()

    def stop(self) -> None:
        """End it, with little time for a last summary: the line may be down."""
        if not self.client.close(_LAST_WORDS_S):
            engine = self.client._engine
            assert engine.stream.join(WAIT_S), "the thread of the stream has not ended"
            assert engine.reporter.join(WAIT_S), "the thread that reports has not ended"


class Propagation(RuleBasedStateMachine):
    template: Template

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="propagation-", dir=self.template.folder))
        shutil.copy(self.template.file, self.folder / "flags.db")
        self.server = Server(self.folder, self.template.admin_token, self.template.sdk_token)
        self.processes = [
            Process(self.server, self.template.sdk_token, self.folder / f"cache-{number}", poll_s)
            for number, poll_s in enumerate((0.02, 20.0))
        ]
        self.kills: dict[str, tuple[str, int]] = {}  # flag → id and sequence, acknowledged
        self.kills_in_backup: dict[str, tuple[str, int]] = {}
        self.is_set_back = False
        self.summaries = 0

    # --- what people and pipelines do ---------------------------------------------------------

    @rule(flag=st.sampled_from(("delta", "epsilon")))
    def create(self, flag: str) -> None:
        body = {"key": flag, "type": "boolean", "variants": {"on": True, "off": False}}
        assert self.server.call("POST", "/api/v1/flags", body).status_code in (201, 409)

    @rule(flag=flags, archived=st.booleans())
    def archive(self, flag: str, archived: bool) -> None:
        path = f"/api/v1/flags/{flag}"
        found = self.server.call("GET", path)
        if found.status_code == 200:
            version = found.get_json()["version"]
            self.server.call("PATCH", path, {"archived": archived}, if_match=version)

    @rule(flag=flags, share=shares)
    def split(self, flag: str, share: int) -> None:
        weights = {"on": share, "off": 100_000 - share}
        self._patch(flag, {"enabled": True, "default_serve": {"split": {"weights": weights}}})

    @rule(flag=flags, enabled=st.booleans())
    def enable(self, flag: str, enabled: bool) -> None:
        self._patch(flag, {"enabled": enabled})

    @rule(flag=flags, segment=segments)
    def target(self, flag: str, segment: str) -> None:
        condition = {"segment": segment}
        self._patch(
            flag, {"rules": [{"id": "r", "condition": condition, "serve": {"variant": "on"}}]}
        )

    @rule(flag=flags)
    def write_unseen(self, flag: str) -> None:
        """Change a version that is not the current one: refused, and nobody hears of it."""
        before = self.server.sequence
        path = _path(flag)
        answer = self.server.call("PATCH", path, {"enabled": True}, if_match=999)
        assert answer.status_code in (404, 412)
        assert self.server.sequence >= before

    @rule(segment=segments, country=st.sampled_from(("NL", "BE")))
    def put_segment(self, segment: str, country: str) -> None:
        condition = {"attribute": "country", "op": "in", "values": [country]}
        path = f"/api/v1/environments/{ENVIRONMENT}/segments/{segment}"
        self.server.call("PUT", path, {"condition": condition})

    @rule(segment=segments)
    def delete_segment(self, segment: str) -> None:
        self.server.call("DELETE", f"/api/v1/environments/{ENVIRONMENT}/segments/{segment}")

    @rule(flag=flags, version=st.integers(1, 5))
    def roll_back(self, flag: str, version: int) -> None:
        found = self.server.call("GET", _path(flag))
        if found.status_code == 200:
            body = {"version": version, "comment": "back"}
            now = found.get_json()["version"]
            self.server.call("POST", f"{_path(flag)}/rollback", body, if_match=now)

    @rule(flag=flags, bakes=st.booleans())
    def start_rollout(self, flag: str, bakes: bool) -> None:
        stages = [{"percent": p, "bake_time_s": 3600 * bakes} for p in (50, 75, 95)]
        body = {"stages": [{**stage, "min_exposures": 0} for stage in stages]}
        self.server.call("POST", f"{_path(flag)}/rollouts", body)

    @rule(flag=flags, move=st.sampled_from(("pause", "resume", "advance", "abort", "approve")))
    def move_rollout(self, flag: str, move: str) -> None:
        found = self.server.call("GET", f"{_path(flag)}/rollouts")
        if found.status_code == 200 and (items := found.get_json()["items"]):
            path = f"{_path(flag)}/rollouts/{items[0]['id']}/{move}"
            self.server.call("POST", path, {"reason": "a test"})

    @rule(flag=flags)
    def kill(self, flag: str) -> None:
        answer = self.server.call("POST", f"{_path(flag)}/kill", {"reason": "a test"})
        if answer.status_code == 200:
            killed = answer.get_json()
            self._note_kill(flag, killed["kill"]["id"], killed["sequence"])

    @rule()
    def kill_all(self) -> None:
        path = f"/api/v1/environments/{ENVIRONMENT}/kill"
        answer = self.server.call("POST", path, {"tag": "shop", "reason": "a test"})
        assert answer.status_code in (200, 404), answer.text
        self._note_standing_kills()

    @rule(number=st.integers(0, len(FLAGS) - 1), starts_rollout=st.booleans())
    def restore(self, number: int, starts_rollout: bool) -> None:
        """Restore one of those that were killed."""
        if not self.kills:
            return
        flag = sorted(self.kills)[number % len(self.kills)]
        body: dict[str, Any] = {"kill": self.kills[flag][0], "reason": "a test"}
        if starts_rollout:
            body["rollout"] = {"template": "standard"}
        answer = self.server.call("POST", f"{_path(flag)}/restore", body)
        if answer.status_code == 200:
            del self.kills[flag]

    @rule(flag=flags)
    def restore_unseen(self, flag: str) -> None:
        body = {"kill": "kill-0000000000000000", "reason": "a test"}
        answer = self.server.call("POST", f"{_path(flag)}/restore", body)
        assert answer.status_code in (404, 409)

    @rule(flag=flags)
    def fail(self, flag: str) -> None:
        """Report what makes the guard kill a flag that is split."""
        found = self.server.call("GET", _path(flag))
        if found.status_code != 200:
            return
        hashes = [f"{self.summaries:08x}{number:08x}" for number in range(_FAILING)]
        on = {"flag": flag, "split": "default", "config_version": found.get_json()["version"]}
        on |= {"variant": "on", "exposures": 250, "errors": _FAILING}
        off = {**on, "variant": "off", "exposures": 750, "errors": 0, "units": {}}
        on["units"] = {"error:KeyError": hashes}
        self.summaries += 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        summary = {
            "instance": f"i-{id(self):x}-{self.summaries}",
            "sequence": 1,
            "service": "shop",
            "service_version": "1",
            "applied_sequence": 0,
            "started_at": now,
            "ended_at": now,
            "cells": [on, off],
        }
        self.server.ask_as_application("POST", "/sdk/v1/telemetry", summary)
        self._note_standing_kills()

    def _patch(self, flag: str, changes: dict[str, Any]) -> None:
        found = self.server.call("GET", _path(flag))
        if found.status_code == 200:
            version = found.get_json()["version"]
            self.server.call("PATCH", _path(flag), changes, if_match=version)

    def _note_standing_kills(self) -> None:
        for flag in FLAGS:
            found = self.server.call("GET", _path(flag))
            kill = found.get_json()["kill"] if found.status_code == 200 else None
            if kill is not None:
                self._note_kill(flag, kill["id"], self.server.sequence)

    def _note_kill(self, flag: str, kill: str, sequence: int) -> None:
        if self.kills.get(flag, ("",))[0] != kill:
            self.kills[flag] = kill, sequence

    # --- what lines and machines do -----------------------------------------------------------

    @rule(process=processes)
    def hold_line(self, process: int) -> None:
        self.processes[process].line.hold()

    @rule(process=processes)
    def let_flow(self, process: int) -> None:
        self.processes[process].line.flow()

    @rule(process=processes, blocks=st.integers(1, 4), part=st.sampled_from((0.0, 0.1, 0.9)))
    def let_some_through(self, process: int, blocks: int, part: float) -> None:
        connection = self.processes[process].line.connection
        if connection is not None and connection.is_open:
            connection.let(blocks, part)

    @rule(process=processes, repeats=st.integers(0, 4))
    def cut_line(self, process: int, repeats: int) -> None:
        self.processes[process].line.cut(repeats)

    @rule(process=processes)
    def lose_line(self, process: int) -> None:
        self.processes[process].line.go_down()

    @rule(process=processes, stale=st.booleans(), loses_replies=st.booleans())
    def mend_line(self, process: int, stale: bool, loses_replies: bool) -> None:
        line = self.processes[process].line
        line.is_up = True
        line.faults.stale, line.faults.loses_replies = stale, loses_replies

    @rule(process=processes)
    def restart_process(self, process: int) -> None:
        self.processes[process].restart()

    @rule()
    def restart_server(self) -> None:
        self.server.restart()

    @rule()
    def back_up(self) -> None:
        self.server.back_up()
        self.kills_in_backup = dict(self.kills)

    @rule()
    def put_back(self) -> None:
        if not self.server.has_backup:
            return
        self.server.put_back()
        self.is_set_back = True
        # Whoever puts a backup back undoes what was killed since, and must know.
        self.kills = dict(self.kills_in_backup)

    @rule(flag=flags, share=shares, agrees=st.booleans())
    def undo_by_backup(self, flag: str, share: int, agrees: bool) -> None:
        """Put back what was before a change and a kill, which processes may have heard of."""
        self.back_up()
        self.split(flag, share)
        self.kill(flag)
        if agrees:
            self.agree()
        self.put_back()

    # --- what has to hold ---------------------------------------------------------------------

    @invariant()
    def every_process_holds_what_was_published(self) -> None:
        """Unless it knows that the server was set back: then it asks for the whole set."""
        for process in self.processes:
            state = process.client._state
            document = state.document
            if document is None or not state.is_from_server:
                continue
            assert document["sequence"] >= process.sequence, "a process went back"
            process.sequence = document["sequence"]
            published = self.server.published.at(document["sequence"])
            assert published is not None, f"{document['sequence']} was never published"
            differences = {
                **_differences(document["flags"], published["flags"]),
                **_differences(document["segments"], published["segments"]),
            }
            if differences and not state.is_diverged:
                # It may have been about to take over the whole set in this moment.
                deadline_s = time.monotonic() + _TAKING_OVER_S
                while state.document is document and not state.is_diverged:
                    assert time.monotonic() < deadline_s, f"{document['sequence']}: {differences}"
                    time.sleep(0.01)

    @invariant()
    def a_kill_stands_until_it_is_restored(self) -> None:
        served = self.server.ask_as_application("GET", "/sdk/v1/flags")
        for flag, (kill, _) in self.kills.items():
            if flag in served["flags"]:  # else it is archived, and off
                standing = served["flags"][flag]["kill"]
                assert standing is not None, f"{flag} is not killed any more"
                assert standing["id"] == kill

    @invariant()
    def a_killed_flag_serves_its_off_variant(self) -> None:
        for process in self.processes:
            flag_set, document = process.client.flag_set, process.client._state.document
            if document is None or document["sequence"] != flag_set.sequence:
                continue
            for key, flag in document["flags"].items():
                if flag["kill"] is not None:
                    for user in USERS[:4]:
                        served = flag_set.resolve(key, user).variant
                        assert served == flag["off_variant"], f"{key} serves {served}"

    @rule()
    def agree(self) -> None:
        """With everything well again, processes come to serve what the server does."""
        for process in self.processes:
            process.line.mend()
        if self.is_set_back:
            # Processes keep what is newer than a backup until the server has something newer.
            self.create(_AFTER)
            enabled = self.server.call("GET", _path(_AFTER)).get_json()["enabled"]
            self._patch(_AFTER, {"enabled": not enabled})
            self.is_set_back = False
        deadline_s = time.monotonic() + WAIT_S
        while disagreement := self._disagreement():
            assert time.monotonic() < deadline_s, disagreement
            time.sleep(0.005)

    def _disagreement(self) -> str:
        """Return what the first process does that serves something else than the server."""
        wanted = self.server.sequence
        for number, process in enumerate(self.processes):
            if process.client.flag_set.sequence != wanted:
                held = process.client.flag_set.sequence
                return f"process {number} holds {held}, the server {wanted}"
        for user in USERS:
            by_server = self.server.evaluations(user)
            for number, process in enumerate(self.processes):
                found = {
                    key: (details.variant, details.value)
                    for key, details in process.client.all_flags(user).items()
                }
                if found != by_server:
                    return f"process {number} serves {user} {found}, the server {by_server}"
        return ""

    def teardown(self) -> None:
        try:
            self.agree()
            self.every_process_holds_what_was_published()
            self.a_kill_stands_until_it_is_restored()
        finally:
            for process in self.processes:
                process.line.mend()
                process.stop()
            self.server.stop()
            shutil.rmtree(self.folder)


def _differences(held: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not the same: key → what is held, what was published."""
    return {
        key: (held.get(key), published.get(key))
        for key in held.keys() | published.keys()
        if held.get(key) != published.get(key)
    }


def _path(flag: str) -> str:
    return f"/api/v1/flags/{flag}/environments/{ENVIRONMENT}"
