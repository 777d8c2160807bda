"""Starts everything, lets the story run, closes with its figures, and ends everything."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import requests

from examples.demo import closing
from examples.demo.admin import AdminApi
from examples.demo.figures import Figures, close, problems
from examples.demo.processes import Cluster, ProcessFailedError
from examples.demo.replay import Replay
from examples.demo.story import Story
from examples.demo.timeline import Timeline, complain
from examples.demo.traffic import Visit, read_log, replay
from examples.shop.checkout import PaymentGatewayError

_INTERRUPTED = 130
_DEFAULT_RATE = 200.0


def main() -> int:
    """Run the demo; 0 says that what should have happened did."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    runner = _Demo(options)
    try:
        with TemporaryDirectory(prefix="flagd-demo-") as folder:
            runner.run(Path(folder))
    except KeyboardInterrupt:
        runner.timeline.say("", "stopped; every process has ended")
    except BrokenPipeError:
        return _leave_quietly()
    except (ProcessFailedError, requests.RequestException) as error:
        runner.problems.append(str(error))
    for problem in runner.problems:
        complain(problem)
    if options.json:
        print(json.dumps(runner.document()), flush=True)
    if runner.figures is None and not runner.problems:
        return _INTERRUPTED
    return 1 if runner.problems else 0


class _Demo:
    """One run and what has come of it so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.timeline = Timeline()
        self.figures: Figures | None = None
        self.problems: list[str] = []

    def document(self) -> dict[str, object]:
        figures = {} if self.figures is None else asdict(self.figures)
        is_ok = self.figures is not None and not self.problems
        return {"ok": is_ok, "problems": self.problems, **figures}

    def run(self, folder: Path) -> None:
        options, timeline = self.options, self.timeline
        visits = read_log()
        timeline.say(
            "A flag is released under real traffic"
            + (" and behaves well." if options.healthy else ", turns bad, and goes off by itself."),
            f"{len(visits):,} recorded requests of a public web site, {options.rate:.0f} a second;"
            " visitors are targeting keys,",
            "and what failed in the log fails here too, flag or no flag.",
            "",
        )
        with Cluster(folder) as cluster:
            try:
                self._play(cluster, visits)
            except requests.RequestException:
                cluster.check()  # a process that has ended explains it better
                raise

    def _play(self, cluster: Cluster, visits: Sequence[Visit]) -> None:
        options, timeline = self.options, self.timeline
        cluster.start_server()
        timeline.event(f"START   the server, on {cluster.url}")
        cluster.start_shops()
        shops = list(cluster.shops.values())
        timeline.event(f"START   three processes of the shop: {', '.join(shops)}")
        admin = AdminApi(cluster.url, cluster.admin_token)
        with Replay(replay(visits), shops, options.rate) as visitors:
            story = Story(cluster, admin, visitors, timeline, len(visits))
            kill = story.run(is_healthy=options.healthy)
            self.figures = close(visitors.answers(), kill, is_healthy=options.healthy)
            self.problems += problems(
                self.figures, kill, PaymentGatewayError.__name__, list(cluster.shops)
            )
            timeline.say(*closing.in_words(self.figures))
            if kill is not None:
                timeline.say(*closing.report_in_short(kill))
            if not options.once:
                timeline.say(*closing.by_hand(cluster, admin.flag_url, kill))
                story.look_around()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the demo; further signals find it ending already, which takes seconds at the most."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def _leave_quietly() -> int:
    """Nobody reads any more; keep the interpreter from trying once more at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Releases a flag under real traffic, breaks it, and watches it go off.",
    )
    parser.add_argument("--healthy", action="store_true", help="break nothing: nothing is killed")
    parser.add_argument("--once", action="store_true", help="end after the closing figures")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, last")
    parser.add_argument(
        "--rate", type=_rate, default=_DEFAULT_RATE, help="requests a second (default: 200)"
    )
    return parser.parse_args()


def _rate(text: str) -> float:
    rate = float(text)
    if not 1 <= rate <= 1_000:
        raise argparse.ArgumentTypeError("expected 1 to 1000 requests a second")
    return rate


if __name__ == "__main__":
    sys.exit(main())
