"""`python -m tests.fuzz --cases 20000`: the long run, in process and a share on a real server."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.flag_server import FlagServer
from tests.fuzz import no_outgoing
from tests.fuzz.calls import OverHttp, Sender
from tests.fuzz.first_database import UNLIMITED
from tests.fuzz.run import Fuzzing, Opened, Report, show_progress
from tests.fuzz.world import Template, World, build


def main() -> int:
    """Run it and print the summary; return 1 where anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="in process")
    parser.add_argument("--served", type=int, default=2_000, help="on a real server, by HTTP")
    parser.add_argument("--seed", type=int, help="of an earlier run, to repeat it")
    arguments = parser.parse_args()
    number = time.time_ns() % 2**32 if arguments.seed is None else arguments.seed
    sys.stderr.write(f"seed {number}\n")
    with tempfile.TemporaryDirectory() as folder:
        reports = {
            "in process": _run(number, arguments.cases, Template(Path(folder)).copy),
            "served": _run(number, arguments.served, lambda: _served(Path(folder))),
        }
    for name, report in reports.items():
        _print(name, report)
    return int(any(report.breaches for report in reports.values()))


def _run(number: int, cases: int, opened: Opened) -> Report:
    report = Fuzzing(number, cases, show_progress(cases)).run(opened)
    sys.stderr.write("\n")
    return report


@contextmanager
def _served(folder: Path) -> Iterator[tuple[World, Sender]]:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        limits = {f"FLAGD_{name.upper()}": str(value) for name, value in UNLIMITED.items()}
        server = FlagServer(Path(own), program=("-m", no_outgoing.__name__), **limits)
        sender = OverHttp(server.url)
        try:
            world = build(sender, server.admin_token, str(server.database))
            world.secrets.update(server.sdk_tokens.values())
            yield world, sender
        finally:
            sender.close()
            server.stop()


def _print(name: str, report: Report) -> None:
    print(f"\n{name}: {report.cases:,} cases, {report.unsendable:,} that HTTP can't carry")
    for counter in (report.callers, report.modes):
        print("  " + ", ".join(f"{key} {count:,}" for key, count in sorted(counter.items())))
    if report.cases:
        print(report.table())
    found = report.distinct()
    print(f"{len(report.breaches)} breaches, of {len(found)} kinds")
    for breach in found:
        print(f"\n{breach.operation}, {breach.caller}: {breach.what}\n  {breach.shown}")


if __name__ == "__main__":
    sys.exit(main())
