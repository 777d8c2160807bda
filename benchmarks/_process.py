"""What a process takes, as Linux tells it."""

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Attributes:
    rss: bytes in memory.
    pss: the same, where a page shared by n processes counts as an n-th.
    cpu_s: processor time since it began, its own and the kernel's for it.
    """

    rss: int
    pss: int
    descriptors: int
    threads: int
    cpu_s: float


def usage_of(process: int) -> Usage:
    """Read what a process takes now.

    Raises:
        OSError: there is no such process.
    """
    proc = Path("/proc", str(process))
    kilobytes = {}
    for line in (proc / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, figure = line.partition(":")
        kilobytes[name] = int(figure.split()[0])
    # Fields 14, 15 and 20 of proc(5); the name before them may hold blanks.
    after_name = (proc / "stat").read_text().rpartition(")")[2].split()
    ticks = int(after_name[11]) + int(after_name[12])
    return Usage(
        rss=kilobytes["Rss"] * 1024,
        pss=kilobytes["Pss"] * 1024,
        descriptors=len(list((proc / "fd").iterdir())),
        threads=int(after_name[17]),
        cpu_s=ticks * _TICK_S,
    )


def raise_descriptor_limit() -> int:
    """Raise this process's limit as far as it may, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


_TICK_S = 1 / 100  # USER_HZ, the same on every Linux
