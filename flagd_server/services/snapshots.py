"""The flag sets as SDKs get them, encoded once and kept in memory.

A set is the bytes of its flags, joined when someone asks for a sequence number that nobody has
asked for yet. A change of one flag encodes that flag and no other.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flagd_sdk.core import sse
from flagd_server.domain.configuration import flag_document
from flagd_server.errors import NotFoundError
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.records import ConfigurationVersion, Environment, Flag


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One flag set of one environment.

    Attributes:
        etag: with its quotes.
        body: the JSON that `GET /sdk/v1/flags` answers with.
        event: the same as the `flags` event of a stream, ready to be written.
    """

    environment: str
    sequence: int
    etag: str
    body: bytes
    event: bytes


@dataclass(frozen=True, slots=True)
class Parts:
    """A flag set in pieces. `flags`: key → the encoded flag; never changed in place."""

    environment: str
    sequence: int
    unit_key: str
    flags: Mapping[str, bytes]
    segments: bytes

    def joined(self) -> Snapshot:
        flags = b",".join(b"%b:%b" % (encode(key), flag) for key, flag in self.flags.items())
        body = b'{"environment":%b,"sequence":%d,"unit_key":%b,"flags":{%b},"segments":%b}' % (
            encode(self.environment),
            self.sequence,
            encode(self.unit_key),
            flags,
            self.segments,
        )
        return Snapshot(
            environment=self.environment,
            sequence=self.sequence,
            etag=f'"{self.environment}-{self.sequence}"',
            body=body,
            event=sse.encode("flags", body, str(self.sequence)),
        )


class Snapshots:
    """Answers from memory; loads an environment from the storage when first asked for it.

    `apply_…` are called after each commit, in the order of the commits. Reading takes no lock
    once an environment is loaded.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # Guards loading and changing both dictionaries; taken after the storage's turn to write.
        self._lock = threading.Lock()
        self._parts: dict[str, Parts] = {}
        self._joined: dict[str, Snapshot] = {}

    def current(self, environment: str) -> Snapshot:
        """Return the newest flag set.

        Raises:
            NotFoundError: there is no such environment.
        """
        parts = self.parts(environment)
        snapshot = self._joined.get(environment)
        if snapshot is None or snapshot.sequence != parts.sequence:
            # Two threads may join the same set at once; the result is the same and either is kept.
            snapshot = parts.joined()
            self._joined[environment] = snapshot
        return snapshot

    def parts(self, environment: str) -> Parts:
        """Return the newest flag set in pieces: the same object until it changes.

        Raises:
            NotFoundError: there is no such environment.
        """
        return self._parts.get(environment) or self._load(environment)

    def apply_flag(self, environment: str, sequence: int, key: str, flag: bytes | None) -> None:
        """Take over one encoded flag; None where it is delivered no longer."""
        with self._lock:
            parts = self._newer_than_held(environment, sequence)
            if parts is None:
                return
            flags = dict(parts.flags)
            if flag is None:
                flags.pop(key, None)
            else:
                flags[key] = flag
            self._parts[environment] = replace(parts, sequence=sequence, flags=flags)

    def apply_segments(self, environment: str, sequence: int, segments: bytes) -> None:
        """Take over the encoded segments of the environment."""
        with self._lock:
            parts = self._newer_than_held(environment, sequence)
            if parts is not None:
                self._parts[environment] = replace(parts, sequence=sequence, segments=segments)

    def sequence(self, environment: str) -> int | None:
        """Return the sequence that is held; None where nothing is."""
        parts = self._parts.get(environment)
        return None if parts is None else parts.sequence

    def loaded(self) -> list[str]:
        """Return the environments that are held."""
        with self._lock:
            return list(self._parts)

    def reload(self, environment: str) -> Parts | None:
        """Read an environment anew and return what is held then; None where there is none.

        Raises:
            StorageError: it can't be read; what was held stays.
        """
        with self._storage.read() as reader:
            try:
                parts = _read_parts(reader, environment)
            except NotFoundError:
                self.forget(environment)
                return None
        with self._lock:
            held = self._parts.get(environment)
            # One that was deleted and made again has another key for units.
            if held is None or held.sequence < parts.sequence or held.unit_key != parts.unit_key:
                held = self._parts[environment] = parts
            return held

    def forget(self, environment: str) -> None:
        """Load the environment afresh when it is next asked for."""
        with self._lock:
            self._parts.pop(environment, None)
            self._joined.pop(environment, None)

    def _newer_than_held(self, environment: str, sequence: int) -> Parts | None:
        # An environment not loaded yet will be read with the change in it; one that was loaded
        # between a commit and its announcement has it already.
        parts = self._parts.get(environment)
        return parts if parts is not None and parts.sequence < sequence else None

    def _load(self, environment: str) -> Parts:
        with self._lock:
            # Another thread may have been first while this one waited.
            parts = self._parts.get(environment)
            if parts is None:
                with self._storage.read() as reader:
                    parts = _read_parts(reader, environment)
                self._parts[environment] = parts
            return parts


def _read_parts(reader: Reader, environment: str) -> Parts:
    record: Environment | None = reader.environment(environment)
    if record is None:
        raise NotFoundError("environment", environment)
    flags = {flag.key: flag for flag in reader.flags(archived=False)}
    return Parts(
        environment=environment,
        sequence=record.sequence,
        unit_key=record.unit_key.hex(),
        flags={
            version.flag: encode_flag(flags[version.flag], version)
            for version in reader.configurations(environment)
            if version.flag in flags
        },
        segments=encode_segments(reader, environment),
    )


def encode_flag(flag: Flag, version: ConfigurationVersion) -> bytes:
    """Return the flag as it is delivered."""
    return encode(
        flag_document(flag.key, flag.type, flag.variants, version.version, version.configuration)
    )


def encode_segments(reader: Reader, environment: str) -> bytes:
    """Return the environment's segments as they are delivered."""
    return encode({segment.key: segment.condition for segment in reader.segments(environment)})


def encode(value: Any) -> bytes:
    """Return compact JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
