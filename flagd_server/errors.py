"""Everything the server raises on purpose. None of it knows of HTTP.

ServerError
├─ SettingsError              the environment variables can't be used; at start-up
├─ StorageError               the storage was misused
│  ├─ StorageUnavailableError   it can't be read or written now; the cause is chained
│  ├─ StorageInUseError         another server runs on it
│  ├─ NotLeadingError           only the leader may do this, and that is another server now
│  └─ SchemaError               the file is of another kind, or of a newer version of the server
├─ OutgoingError              another server was asked, and gave no answer
│  ├─ OutgoingRefusedError      it may not be asked
│  ├─ OutgoingTimeoutError      not in time
│  └─ OutgoingFailedError       for any other reason
└─ ServiceError               what was asked for can't be done; nothing was changed
   ├─ NotFoundError
   ├─ ConflictError             the present state does not allow it
   ├─ VersionConflictError      the caller has not seen the newest version
   ├─ NotAllowedError           the caller's role does not allow it
   ├─ LoginError                the name and password open nothing
   ├─ TooManyRequestsError      one client asks for more than any in order would
   │  └─ TooManyReportsError      of telemetry
   └─ InvalidError              the content is wrong; every fault is named
"""

from collections.abc import Iterable

from flagd_server.domain.faults import Fault


class ServerError(Exception):
    """Root of the tree."""


class SettingsError(ServerError):
    """Settings that can't be used.

    Attributes:
        faults: one message for each, naming the variable and what was expected.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class StorageError(ServerError):
    """The storage was misused, or its content contradicts itself."""


class StorageUnavailableError(StorageError):
    """The storage can't be reached, is locked, full or broken. Nothing was changed."""


class StorageInUseError(StorageError):
    """Another server runs on the storage, and would not hear what this one announces."""


class NotLeadingError(StorageError):
    """Of the servers on the storage, another one leads now. Nothing was changed."""


class SchemaError(StorageError):
    """The database belongs to something else or to a newer version of the server."""


class OutgoingError(ServerError):
    """Another server was to be asked, and gave no answer; the message says which and why."""


class OutgoingRefusedError(OutgoingError):
    """This server does not ask there."""


class OutgoingTimeoutError(OutgoingError):
    """The whole answer was not there in time."""


class OutgoingFailedError(OutgoingError):
    """The name is unknown, nobody listens, or what came is no HTTP."""


class ServiceError(ServerError):
    """What was asked for can't be done; nothing was changed."""


class NotFoundError(ServiceError):
    """There is no such thing.

    Attributes:
        kind: what was looked for, as a person calls it ("flag", "environment").
        key: its key.
    """

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        super().__init__(f"there is no {kind} {key!r}")


class ConflictError(ServiceError):
    """The present state does not allow it; the message says what stands in the way."""


class VersionConflictError(ServiceError):
    """Someone else was first.

    Attributes:
        current_version: the version to read before trying again.
    """

    def __init__(self, current_version: int) -> None:
        self.current_version = current_version
        super().__init__(f"the current version is {current_version}")


class NotAllowedError(ServiceError):
    """The caller may do such things, but not this one.

    Attributes:
        role: which would do.
        environment: where it is needed; None for everywhere.
    """

    def __init__(self, what: str, role: str, environment: str | None) -> None:
        self.role = role
        self.environment = environment
        super().__init__(what)


class LoginError(ServiceError):
    """The name and password open nothing. Which of them is wrong is not said."""


class TooManyRequestsError(ServiceError):
    """One client sends more than any that is in order would.

    Attributes:
        retry_after_s: when it may try again, with jitter, so that a fleet does not come at once.
    """

    def __init__(self, what: str, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(what)


class TooManyReportsError(TooManyRequestsError):
    """The client is one that reports telemetry."""


class InvalidError(ServiceError):
    """The content can't be accepted.

    Attributes:
        faults: all of them, not only the first.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in self.faults))
