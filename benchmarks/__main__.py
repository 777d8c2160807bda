"""Runs benchmarks by name and prints each figure with its goal beside it.

python -m benchmarks evaluation
python -m benchmarks all --write benchmarks/RESULTS.md
"""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks._harness import Row, markdown_table, print_table, rewrite, rows_as_json

# Each is a module with `run(small: bool) -> list[Row]`; one with `plot(rows, path)` has a picture
# beside the report, too.
BENCHMARKS = ("evaluation", "propagation", "load", "guard")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. A missed goal is told in its row and fails nothing."""
    options = _parser().parse_args(arguments)
    names = BENCHMARKS if options.name == "all" else (options.name,)
    rows: list[Row] = []
    sections: dict[str, str] = {}
    for name in names:
        module = import_module(f"benchmarks.{name}")
        found: list[Row] = module.run(options.small)
        print_table(name, found)
        sections[name] = f"{module.__doc__}\n{markdown_table(found)}"
        if options.write is not None and hasattr(module, "plot"):
            picture = options.write.with_name(f"{name}.svg")
            module.plot(found, picture)
            sections[name] += f"\n![{name}]({picture.name})\n"
        rows += found
    if options.write is not None:
        report = options.write.read_text("utf-8") if options.write.exists() else ""
        report = rewrite(report, sections, _head(options.small))
        options.write.write_text(report, encoding="utf-8")
    if options.json:
        print(rows_as_json(rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=(*BENCHMARKS, "all"))
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, last")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the results into a markdown report"
    )
    return parser


def _head(small: bool) -> str:
    date = datetime.now(UTC).date().isoformat()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    size = ", small run" if small else ""
    return f"# Benchmarks\n\n{date}, {machine}, {python}{size}\n"


if __name__ == "__main__":
    sys.exit(main())
