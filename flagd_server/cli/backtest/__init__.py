"""`flagd-server backtest`: what the guard would have decided on what was recorded.

A file alone is answered event by event. Everything else compares policies over the same events.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flagd_server.cli.backtest.answers import document, table
from flagd_server.cli.backtest.plot import load_plotter
from flagd_server.cli.backtest.sources import (
    Recording,
    naming,
    open_life,
    open_lines,
    open_recording,
    open_traffic,
)
from flagd_server.cli.options import InputError, add_database, complain, settings_of, text
from flagd_server.domain.guard.backtest import backtest
from flagd_server.domain.guard.policy_trials import (
    changed_policy,
    compare_policies,
    parse_policies,
    parse_settings,
)
from flagd_server.domain.guard.traffic import BUCKETS, InjectedFault
from flagd_server.errors import ServerError

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "run recorded events through the guard, under one policy or several"
_DESCRIPTION = """\
What would the guard have decided, when, and at what harm until then?

The events come from a FILE, from a life that a server has stored (--flag), or from recorded
requests that are split by a flag (--traffic). FILE alone answers each event with one line of JSON.
Otherwise the answer is a table: the policy that the events came with, then each --policy, which
changes the named settings of that one.
"""
_EXAMPLES = """\
examples:
  flagd-server backtest recording.jsonl
  flagd-server backtest recording.jsonl --policy alpha=0.01 --policy margin=1.2
  flagd-server backtest --database flagd.db --environment production --flag new-checkout \\
      --policy alpha=0.01,margin=1.2 --plot evidence.png
  flagd-server backtest --traffic access_log.csv.gz --share 25 \\
      --fault 3 --fault-kind old --fault-at 36000 --policy policies.json --json

A file that ends in .json holds policies by name:
  {"strict": {"alpha": 0.0001}, "lax": {"margin": 1.5}}
"""
_SHARE_PERCENT = 25.0
_PLOT_FORMATS = (".png", ".svg")
_WITH = {
    "flag": ("environment", "life", "FLAGD_DATABASE"),
    "traffic": ("share", "seed", "fault", "fault_kind", "fault_at"),
}
"""Which options go with which source."""
_WITH_FAULT = ("fault_kind", "fault_at")


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "backtest",
        help=_HELP,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="recorded events as JSON lines, the policy first; - for standard input",
    )

    life = parser.add_argument_group("from a life that is stored", "a server may run meanwhile")
    add_database(life)
    life.add_argument("--environment", metavar="KEY", type=text)
    life.add_argument("--flag", metavar="KEY", type=text)
    life.add_argument("--life", metavar="ID", type=int, help="the newest where not given")

    traffic = parser.add_argument_group("from recorded requests")
    traffic.add_argument(
        "--traffic",
        metavar="FILE.csv.gz",
        help="with the columns time, visitor, status; 400 and above is a failure",
    )
    traffic.add_argument(
        "--share", metavar="PERCENT", type=float, help=f"of the treatment ({_SHARE_PERCENT:g})"
    )
    traffic.add_argument(
        "--seed", type=int, help="another one deals the visitors to other variants (0)"
    )
    traffic.add_argument(
        "--fault", metavar="RATIO", type=float, help="the treatment's requests fail so much more"
    )
    traffic.add_argument(
        "--fault-kind", choices=("new", "old"), help="an error of its own, or those there are (new)"
    )
    traffic.add_argument(
        "--fault-at", metavar="SECONDS", type=float, help="after the first request (0)"
    )

    policies = parser.add_argument_group("policies and answers")
    policies.add_argument(
        "--policy",
        metavar="KEY=VALUE,…",
        dest="policies",
        action="append",
        default=[],
        type=text,
        help="settings to change, each as in a flag's configuration, or FILE.json; may be repeated",
    )
    policies.add_argument("--json", action="store_true", help="answer with one JSON document")
    policies.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw the evidence over time, as .png or .svg; needs the extra flagd-release[plots]",
    )


def run(options: argparse.Namespace) -> int:
    try:
        _refuse_what_does_not_fit(options)
        if options.file is not None and not _is_comparison(options):
            _answer_each(options.file)
        else:
            _compare(options)
    except ServerError as error:
        complain(str(error))
        return 2
    return 0


def _refuse_what_does_not_fit(options: argparse.Namespace) -> None:
    given = vars(options)
    sources = [name for name in ("file", *_WITH) if given[name] is not None]
    if len(sources) != 1:
        raise InputError("expected either a FILE, or --flag, or --traffic")
    for source, others in _WITH.items():
        for name in others:
            if given[name] is not None and source not in sources:
                raise InputError(f"{_spelt(name)}: expected only together with --{source}")
    for name in _WITH_FAULT:
        if given[name] is not None and options.fault is None:
            raise InputError(f"{_spelt(name)}: expected only together with --fault")
    if options.plot is not None and options.plot.suffix.lower() not in _PLOT_FORMATS:
        expected = " or ".join(_PLOT_FORMATS)
        raise InputError(f"--plot: expected a file that ends in {expected}, got {options.plot}")


def _spelt(name: str) -> str:
    return f"--{name.removeprefix('FLAGD_').lower().replace('_', '-')}"


def _is_comparison(options: argparse.Namespace) -> bool:
    return bool(options.policies or options.json or options.plot)


def _answer_each(name: str) -> None:
    with open_lines(name) as lines, naming(name):
        for answer in backtest(lines):
            print(answer, flush=True)


def _compare(options: argparse.Namespace) -> None:
    # Before the work, so that a missing library is not found out after it.
    draw = None if options.plot is None else load_plotter()
    policies = _policies(options.policies)
    with _open(options) as recording:
        own = recording.replay
        replays = {recording.own_policy: own}
        for name, settings in policies.items():
            with naming(f"--policy {name}"):
                replays[name] = own.under(changed_policy(own.policy, settings))
        with naming(recording.title):
            comparison = compare_policies(replays, recording.events)
    if draw is not None:
        # First, for whoever reads the rest may stop in the middle of it.
        try:
            draw(options.plot, recording, comparison)
        except OSError as error:
            raise InputError(f"--plot: can't write {options.plot}: {error.strerror}") from error
    if options.json:
        answer = document(recording, comparison)
        print(json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(table(recording, comparison))


def _policies(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the settings to change, by the policy's name."""
    policies: dict[str, dict[str, Any]] = {}
    for argument in arguments:
        with naming(f"--policy {argument}"):
            if argument.endswith(".json"):
                with open_lines(argument) as lines:
                    policies |= parse_policies("".join(lines))
            else:
                policies[argument] = parse_settings(argument)
    return policies


def _open(options: argparse.Namespace) -> AbstractContextManager[Recording]:
    if options.file is not None:
        return open_recording(options.file)
    if options.flag is not None:
        if options.environment is None:
            raise InputError("--environment: expected together with --flag")
        database = settings_of(options).database
        return open_life(database, options.environment, options.flag, options.life)
    share = _SHARE_PERCENT if options.share is None else options.share
    buckets = round(share * BUCKETS / 100) if isfinite(share) else 0
    if not 0 < buckets < BUCKETS:
        raise InputError(f"--share: expected a percentage between 0 and 100, got {share:g}")
    return nullcontext(open_traffic(options.traffic, buckets, options.seed or 0, _fault(options)))


def _fault(options: argparse.Namespace) -> InjectedFault | None:
    if options.fault is None:
        return None
    if not (isfinite(options.fault) and options.fault > 1.0):
        raise InputError(f"--fault: expected a ratio of more than 1, got {options.fault:g}")
    after_s = options.fault_at or 0.0
    if not (isfinite(after_s) and after_s >= 0.0):
        raise InputError(f"--fault-at: expected seconds, 0 or more, got {after_s:g}")
    return InjectedFault(options.fault, options.fault_kind != "old", after_s)
