"""The contenders, one module each, which alone imports its package."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from benchmarks.peers.workload import User

# Name → module of this package.
CONTENDERS = {
    "flagd-release": "flagd_release",
    "Eppo": "eppo",
    "LaunchDarkly": "launchdarkly",
    "Unleash": "unleash",
    "GrowthBook": "growth_book",
    "OpenFeature in memory": "openfeature_memory",
    "by hand": "by_hand",
}
OURS, FLOOR = "flagd-release", "by hand"


class Contender(Protocol):
    """A client with the two flags, ready to answer.

    Attributes:
        package: name and version, for the report.
        records: what it keeps of an evaluation here, in a few words; "" where nothing.
    """

    package: str
    records: str

    def prepared(self, user: User) -> Any:
        """Return a user in the form that the client wants; not timed."""
        ...

    def is_on(self, key: str, form: Any) -> object:
        """Evaluate one flag for one user."""
        ...

    def ask_all(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        """Evaluate flags for users one by one, each user as one request of an application would.

        This is what is timed, so each contender does it with as little around it as it can.
        """
        ...

    def close(self) -> None: ...


def open_contender(name: str, is_recording: bool, sink: str) -> Contender:
    """Return a contender.

    Args:
        is_recording: with what the client records where an application is set up by its manual,
            or with as little as the client can be brought to.
        sink: address of a server on the loopback that takes whatever is reported.
    """
    module = import_module(f"{__name__}.{CONTENDERS[name]}")
    make: Callable[[bool, str], Contender] = module.open_contender
    return make(is_recording, sink)
