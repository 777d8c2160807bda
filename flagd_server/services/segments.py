"""Segments: named conditions shared by the flags of one environment.

A change of one changes what many flags serve, so all that use it are checked with it, and the
whole flag set is announced.
"""

from flagd_server.domain.configuration import JsonObject
from flagd_server.domain.faults import Fault
from flagd_server.domain.references import references_of
from flagd_server.domain.validation import check_segment
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.dependants import faults_of_dependants, flags_using_segment
from flagd_server.services.lookups import require_environment, segment_conditions
from flagd_server.services.publishing import Publisher
from flagd_server.services.snapshots import encode
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.records import Segment


class Segments:
    """Lists and changes segments."""

    def __init__(self, storage: Storage, publisher: Publisher) -> None:
        self._storage = storage
        self._publisher = publisher

    def list(self, environment: str) -> list[Segment]:
        """Return all of the environment by key, or raise NotFoundError."""
        with self._storage.read() as reader:
            require_environment(reader, environment)
            return reader.segments(environment)

    def get(self, environment: str, key: str) -> Segment:
        """Return one, or raise NotFoundError."""
        with self._storage.read() as reader:
            return _require_segment(reader, environment, key)

    def put(
        self,
        environment: str,
        key: str,
        condition: JsonObject,
        description: str = "",
        *,
        actor: str,
    ) -> Segment:
        """Create the segment (its version is 1) or replace it. The same again changes nothing.

        Raises:
            NotFoundError: there is no such environment.
            InvalidError: with every fault, of the condition and of the flags that use it.
        """
        with self._storage.transaction() as tx:
            require_environment(tx, environment)
            before = tx.segment(environment, key)
            faults = check_segment(
                key, condition, segment_conditions(tx, environment) | {key: condition}
            )
            if faults:
                raise InvalidError(faults)
            segment = Segment(
                environment=environment,
                key=key,
                condition=condition,
                description=description,
                version=1 if before is None else before.version + 1,
                updated_at=self._publisher.clock.now(),
            )
            if before is not None and _content(before) == _content(segment):
                return before
            tx.put_segment(segment)
            faults = [
                Fault("condition", f"{fault.field}: {fault.message}")
                for fault in faults_of_dependants(tx, environment, segment=key)
            ]
            if faults:
                raise InvalidError(faults)
            self._publisher.record(
                tx,
                actor=actor,
                action="segment.create" if before is None else "segment.update",
                target=f"environments/{environment}/segments/{key}",
                environment=environment,
                before_version=None if before is None else before.version,
                after_version=segment.version,
                detail={
                    "before": None if before is None else before.condition,
                    "after": condition,
                },
            )
            self._publisher.announce_segments(tx, environment)
            return segment

    def delete(self, environment: str, key: str, *, actor: str) -> None:
        """Delete a segment that nothing uses.

        Raises:
            NotFoundError: there is no such environment or segment.
            ConflictError: a flag or another segment uses it.
        """
        with self._storage.transaction() as tx:
            segment = _require_segment(tx, environment, key)
            users = [f"flag {flag.key!r}" for flag in flags_using_segment(tx, environment, key)]
            users += [f"segment {other!r}" for other in _segments_using(tx, environment, key)]
            if users:
                raise ConflictError(f"segment {key!r} is used by {', '.join(users)}")
            tx.delete_segment(environment, key)
            self._publisher.record(
                tx,
                actor=actor,
                action="segment.delete",
                target=f"environments/{environment}/segments/{key}",
                environment=environment,
                before_version=segment.version,
                detail={"before": segment.condition, "after": None},
            )
            self._publisher.announce_segments(tx, environment)


def _require_segment(reader: Reader, environment: str, key: str) -> Segment:
    segment = reader.segment(environment, key)
    if segment is None:
        require_environment(reader, environment)
        raise NotFoundError("segment", key)
    return segment


def _segments_using(reader: Reader, environment: str, key: str) -> list[str]:
    return [
        segment.key
        for segment in reader.segments(environment)
        if key in references_of([segment.condition], {}).segments
    ]


def _content(segment: Segment) -> tuple[bytes, str]:
    return encode(segment.condition), segment.description
