"""The chain of the audit: its format, and that every way to reach into it is found."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flagd_server.domain.audit_chain import GENESIS, Head, Link, canonical, link, verify

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "audit_chain.json").read_text())


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda vector: vector["entry"]["id"])
def test_the_format_is_for_good(vector: dict[str, Any]) -> None:
    spelled = vector["canonical"].encode()
    assert json.loads(spelled) == vector["entry"]
    assert canonical(vector["entry"]) == spelled
    previous = bytes.fromhex(vector["previous_hash"])
    assert hashlib.sha256(previous + spelled).hexdigest() == vector["hash"]
    assert link(previous, vector["entry"]).hex() == vector["hash"]


def chain(texts: list[str], after: Head = Head(0, GENESIS)) -> list[Link]:  # noqa: B008 - frozen
    links = []
    for entry_id, text in enumerate(texts, after.id + 1):
        previous = links[-1].hash if links else after.hash
        content = {"id": entry_id, "text": text}
        links.append(Link(entry_id, content, previous, link(previous, content)))
    return links


LOG = chain(list("abcdef"))
HEADS = [Head(entry.id, entry.hash) for entry in LOG]


def renumbered(links: list[Link]) -> list[Link]:
    """Return the entries in this order with ids that do not tell: their hashes stay."""
    return [replace(e, id=i, content={**e.content, "id": i}) for i, e in enumerate(links, 1)]


def found(log: list[Link], *heads: Head) -> tuple[int, str] | None:
    verified = verify(lambda: log, heads)
    return None if verified.found is None else (verified.found.id, verified.found.why)


def test_a_log_that_was_let_be_is_good_with_every_head_it_ever_had() -> None:
    assert verify(list) == verify(list, [Head(0, GENESIS)])
    for length in range(len(LOG) + 1):
        verified = verify(lambda length=length: LOG[:length], [Head(0, GENESIS), *HEADS[:length]])
        assert (verified.found, verified.entries) == (None, length)
        assert verified.head == (HEADS[length - 1] if length else Head(0, GENESIS))


@pytest.mark.parametrize("at", range(6))
class TestWhateverIsDone:
    def test_changed(self, at: int) -> None:
        log = list(LOG)
        log[at] = replace(log[at], content={**log[at].content, "text": "x"})
        assert found(log) == (at + 1, "was changed")

    def test_changed_with_its_hash(self, at: int) -> None:
        log = list(LOG)
        content = {**log[at].content, "text": "x"}
        log[at] = replace(log[at], content=content, hash=link(log[at].previous_hash, content))
        if at == 5:  # nothing follows it; an exported head tells
            assert found(log) is None
            broken = found(log, *HEADS)
            assert broken is not None
            assert broken[0] == 6
            assert "entry 5 is as it was" in broken[1]
        else:
            why = f"was changed, and its hash too: entry {at + 2} followed another"
            assert found(log) == (at + 1, why)

    def test_removed(self, at: int) -> None:
        log = LOG[:at] + LOG[at + 1 :]
        if at == 5:
            assert found(log) is None
            assert found(log, HEADS[5]) == (
                6,
                "is gone, with all after it up to 6, which was exported",
            )
        else:
            assert found(log) == (at + 1, "is gone")

    def test_removed_and_the_ids_closed_up(self, at: int) -> None:
        broken = found(renumbered(LOG[:at] + LOG[at + 1 :]), *HEADS)
        assert broken is not None
        assert broken[0] == at + 1

    def test_inserted(self, at: int) -> None:
        previous = LOG[at - 1].hash if at else GENESIS
        content = {"id": at + 1, "text": "x"}
        new = Link(at + 1, content, previous, link(previous, content))
        log = [*LOG[:at], new, *renumbered([*LOG[:at], new, *LOG[at:]])[at + 1 :]]
        assert found(log) == (at + 1, f"was inserted: entry {at + 2} followed entry {at}")

    def test_put_elsewhere(self, at: int) -> None:
        for to in range(6):
            log = list(LOG)
            log.insert(to, log.pop(at))
            if to != at:
                assert found(renumbered(log)) == (min(at, to) + 1, "was put in another place")

    def test_the_end_cut_off(self, at: int) -> None:
        assert found(LOG[:at]) is None  # nobody can tell, without a head
        broken = found(LOG[:at], *HEADS)
        assert broken == (at + 1, "is gone, with all after it up to 6, which was exported")
        assert found(LOG[:at], HEADS[5]) == broken

    def test_written_anew_from_there(self, at: int) -> None:
        after = HEADS[at - 1] if at else Head(0, GENESIS)
        log = LOG[:at] + chain(list("uvwxyz")[at:], after)
        assert found(log) is None  # whoever writes the whole database can
        broken = found(log, *HEADS)
        assert broken is not None
        assert broken[0] == at + 1
        # One head tells that it was, and by when.
        assert found(log, HEADS[5]) == (
            6,
            "is not what was exported: the log was written anew up to here;"
            " no entry before it was exported",
        )

    def test_a_hash_spoiled(self, at: int) -> None:
        log = list(LOG)
        log[at] = replace(log[at], hash=bytes(32))
        assert found(log) == (at + 1, "was changed")
        log[at] = replace(LOG[at], previous_hash=b"x" * 32)
        assert found(log) == (at + 1, "was changed")


def test_a_run_of_entries_removed_is_named_from_its_first() -> None:
    assert found(LOG[:1] + LOG[4:]) == (2, "is gone, with all up to 4")
    assert found(LOG[3:]) == (1, "is gone, with all up to 3")


def test_heads_that_contradict_each_other_are_not_both_met() -> None:
    assert found(LOG, HEADS[2], Head(3, b"x" * 32)) is not None
