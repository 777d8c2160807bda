"""What is in it, and what is known against that: `python .ci/supply_chain.py audit|sbom`.

`audit` asks about every package of the lock. Where the service can't be reached, pip-audit says
"No known vulnerabilities found" and succeeds; here that is said for what it is, and fails if asked
to (`--strict`, as a release should).

`sbom` writes what an installation of the server brings along, in CycloneDX, the same bytes for the
same lock.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
SBOM = ROOT / "build" / "sbom.cdx.json"
# Extras that a server is installed with; what others bring is the application's own choice.
EXTRAS = ("server", "postgres", "otel", "cli")

_PACKAGE = re.compile(r"^([a-z0-9][a-z0-9._-]*)==", re.MULTILINE)
_VIA = re.compile(r"^    #(?: via|  ) +(\S+)", re.MULTILINE)
_UNREACHABLE = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|ServiceError|Max retries")
_BAR = "*" * 78


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python .ci/supply_chain.py", description=__doc__)
    parser.add_argument("--lock", type=Path, default=LOCK)
    actions = parser.add_subparsers(required=True)
    audit_ = actions.add_parser("audit")
    audit_.set_defaults(run=lambda options: audit(options.lock, options.osv_url, options.strict))
    audit_.add_argument("--strict", action="store_true", help="fail where one could not be asked")
    audit_.add_argument("--osv-url", help="ask an OSV service instead of PyPI")
    sbom_ = actions.add_parser("sbom")
    sbom_.set_defaults(run=lambda options: sbom(options.lock, options.output))
    sbom_.add_argument("--output", type=Path, default=SBOM)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def audit(lock: Path, osv_url: str | None, is_strict: bool) -> int:
    """Return 1 where something is known against a package, or nobody could be asked if strict."""
    service = ["-s", "osv", "--osv-url", osv_url] if osv_url else []
    command = ["-m", "pip_audit", "-r", str(lock), "--require-hashes", "--disable-pip"]
    ran = subprocess.run(
        [sys.executable, *command, "-f", "json", "--progress-spinner", "off", *service],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages: list[dict[str, Any]] = json.loads(ran.stdout)["dependencies"]
    except ValueError:
        if not _UNREACHABLE.search(ran.stderr):
            sys.stderr.write(ran.stderr)
            return ran.returncode or 1
        packages = [{"name": name, "skip_reason": "no answer"} for name in _blocks(lock)]
    known = [package for package in packages if package.get("vulns")]
    for package in known:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
            what = f"{package['name']} {package['version']}: {vulnerability['id']}"
            print(f"{what}; fixed in {fixed}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    audited = len(packages) - len(skipped)
    print(f"{audited} of {len(packages)} packages audited, {len(known)} with known vulnerabilities")
    if skipped:
        names = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
        sys.stderr.write(
            f"{_BAR}\nNOT AUDITED: {len(skipped)} of {len(packages)} packages ({names}).\n"
            "The service that knows vulnerabilities could not be asked about them. This says\n"
            f"nothing about whether they are safe: run it where the network is.\n{_BAR}\n"
        )
    return int(bool(known) or (is_strict and bool(skipped)))


def sbom(lock: Path, output: Path) -> int:
    """Write what a server is made of, validated against CycloneDX's schema."""
    output.parent.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "requirements", "-"),
            *("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"),
            *("--output-reproducible", "--validate", "-o", str(output)),
        ],
        input="".join(runtime(lock)),
        text=True,
        check=False,
    )
    if ran.returncode == 0:
        found = len(json.loads(output.read_text(encoding="utf-8"))["components"])
        print(f"{output.relative_to(ROOT) if output.is_relative_to(ROOT) else output}: {found}")
    return ran.returncode


def runtime(lock: Path) -> Iterator[str]:
    """Yield the lock's lines of each package that an installed server needs, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"]]
    for extra in EXTRAS:
        named += project["optional-dependencies"][extra]
    needed = {canonicalize_name(Requirement(text).name) for text in named}
    blocks = _blocks(lock)
    missing = needed - blocks.keys()
    if missing:
        raise SystemExit(f"{lock} lacks {', '.join(sorted(missing))}")
    while True:
        wanted_by = {name: set(_VIA.findall(block)) for name, block in blocks.items()}
        more = {name for name, parents in wanted_by.items() if parents & needed} - needed
        if not more:
            return (yield from (blocks[name] for name in sorted(needed)))
        needed |= {canonicalize_name(name) for name in more}


def _blocks(lock: Path) -> dict[str, str]:
    """Return the lines of each package in the lock: its version, hashes and who wants it."""
    text = lock.read_text(encoding="utf-8")
    starts = [(match[1], match.start()) for match in _PACKAGE.finditer(text)]
    ends = [start for _, start in starts[1:]] + [len(text)]
    return {name: text[start:end] for (name, start), end in zip(starts, ends, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
