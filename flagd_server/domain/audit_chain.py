"""The chain of the audit: each entry's hash covers what it says and the hash of the one before it.

hash = SHA-256(hash of the entry before ‖ the entry as canonical JSON in UTF-8)

Canonical JSON: the members of `canonical`, sorted by name, without blanks, everything beyond ASCII
escaped; times as `format_time` writes them. The first entry follows 32 zero bytes. The format is
for good: entries written once must verify for ever. `tests/golden/audit_chain.json` holds it.

A chain shows that somebody reached into the middle of a log. Whoever can write the whole database
can also compute it anew from there, or cut its end off: what shows that is a head (an entry's id
and hash) that was exported before, and is kept where they can't write.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GENESIS = bytes(32)
"""What the first entry follows."""

# Made once: `json.dumps` with options makes an encoder each time, for longer than it encodes.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of a log at some moment; id 0 and GENESIS where it had none."""

    id: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """An entry as it stands in the log.

    Attributes:
        content: what the hash covers: every field of the entry, times as text.
    """

    id: int
    content: Mapping[str, Any]
    previous_hash: bytes
    hash: bytes

    @property
    def is_whole(self) -> bool:
        """Whether its hash is that of what it says."""
        return self.hash == link(self.previous_hash, self.content)


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry that is not as it was written.

    Attributes:
        id: the entry's, also where it is gone.
        why: what was done to it, as a sentence about it.
    """

    id: int
    why: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of a log.

    Attributes:
        entries: how many were read.
        head: the newest that is good for certain.
        found: None where all is well.
    """

    entries: int
    head: Head
    found: Break | None


def link(previous_hash: bytes, content: Mapping[str, Any]) -> bytes:
    """Return the hash of an entry that follows the one with `previous_hash`."""
    return hashlib.sha256(previous_hash + canonical(content)).digest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return the one spelling of an entry that its hash covers.

    Raises:
        ValueError: it holds what JSON does not.
    """
    return _encode(dict(content)).encode("ascii")


def verify(read: Callable[[], Iterable[Link]], heads: Sequence[Head] = ()) -> Verified:
    """Look for the first entry that was changed, inserted, removed or put elsewhere.

    Args:
        read: returns the whole log, by id. Called again only to say what was done to it.
        heads: exported before, in any order.
    """
    exported: dict[int, set[bytes]] = {}
    for head in heads:
        exported.setdefault(head.id, set()).add(head.hash)
    exported.pop(0, None)
    last = before = Head(0, GENESIS)
    entries = agreed = 0
    for entry in read():
        if entry.previous_hash != last.hash:
            return Verified(entries, before, _misplaced(entry, last, read))
        if not entry.is_whole:
            return Verified(entries, last, Break(entry.id, "was changed"))
        hashes = exported.pop(entry.id, None)
        if hashes is not None:
            if hashes != {entry.hash}:
                return Verified(entries, last, Break(entry.id, _rewritten(agreed)))
            agreed = entry.id
        before, last = last, Head(entry.id, entry.hash)
        entries += 1
    if exported:
        why = f"is gone, with all after it up to {max(exported)}, which was exported"
        return Verified(entries, last, Break(min(last.id + 1, *exported), why))
    return Verified(entries, last, None)


def _rewritten(agreed: int) -> str:
    since = f"entry {agreed} is as it was" if agreed else "no entry before it was exported"
    return f"is not what was exported: the log was written anew up to here; {since}"


def _misplaced(entry: Link, last: Head, read: Callable[[], Iterable[Link]]) -> Break:
    """Return what was done where an entry does not follow the one that stands before it."""
    followed, next_to_it = _place_of(entry.previous_hash, read)
    if next_to_it is not None and next_to_it < entry.id:
        return Break(next_to_it, f"was inserted: entry {entry.id} followed entry {followed}")
    if followed is not None:
        return Break(entry.id, "was put in another place")
    if entry.id > last.id + 1:
        until = f", with all up to {entry.id - 1}" if entry.id > last.id + 2 else ""
        return Break(last.id + 1, f"is gone{until}")
    if entry.is_whole and last.id:
        return Break(last.id, f"was changed, and its hash too: entry {entry.id} followed another")
    return Break(entry.id, "was changed")


def _place_of(hash_: bytes, read: Callable[[], Iterable[Link]]) -> tuple[int | None, int | None]:
    """Return the id of the entry with the hash and of the one that stands after it, if any."""
    place = 0 if hash_ == GENESIS else None
    for entry in read():
        if place is not None:
            return place, entry.id
        if entry.hash == hash_:
            place = entry.id
    return place, None
