"""How a command ends. Pipelines compare the status, so a number never changes its meaning."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from flagd_sdk.errors import FlagdError


class Exit(IntEnum):
    """The exit status."""

    OK = 0
    REFUSED = 1  # the server said no, a gate is unhealthy, a rollout failed, or there is drift
    USAGE = 2  # the command line, a setting or a file can't be used; nothing was sent
    UNREACHABLE = 3  # no answer, or none that a server in order gives
    CONFLICT = 4  # someone else was first, or the present state doesn't allow it
    INCONCLUSIVE = 5  # the time was up, or nobody can tell yet
    INTERNAL = 70  # a fault of flagctl (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class Problem(NamedTuple):
    """One thing that is wrong: where ("" for the whole), and what was expected there."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class CommandError(FlagdError):
    """A command can't go on; the message is one line.

    Attributes:
        exit: how the program is to end.
        problems: every fault by itself, where there are several.
        status: the HTTP status, where the server refused.
    """

    def __init__(
        self,
        message: str,
        exit_: Exit = Exit.REFUSED,
        problems: Sequence[Problem] = (),
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.exit = exit_
        self.problems = tuple(problems)
        self.status = status

    def to_document(self) -> dict[str, Any]:
        """Return what `--json` prints in place of a result."""
        return {
            "error": {
                "exit": int(self.exit),
                "message": str(self),
                "status": self.status,
                "problems": [problem._asdict() for problem in self.problems],
            }
        }
