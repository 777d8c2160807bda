"""The backtest command: its sources, its answers, its picture, its complaints."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flagd_server.cli import main
from flagd_server.domain.guard.backtest import backtest
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

CONFIG = '{"config": {"control": "off"}}'
BAD = "error:PaymentError"
ROOT = Path(__file__).parents[3]
TRAFFIC = str(ROOT / "examples" / "data" / "access_log.csv.gz")


def line(t: float, on: tuple[int, ...] = (), off: tuple[int, ...] = ()) -> str:
    cells = [
        {
            "split": "default",
            "variant": variant,
            "weights": {"on": 25_000, "off": 75_000},
            "config_version": 1,
            "instance": "i1",
            "exposures": exposures,
            "errors": len(failing),
            "units": {BAD: [f"{unit:016x}" for unit in failing]},
        }
        for variant, failing, exposures in (("on", on, 25), ("off", off, 75))
    ]
    return json.dumps({"t": t, "cells": cells})


LINES = [CONFIG, line(0.0), *(line(float(t), on=(t,)) for t in range(1, 20))]


@pytest.fixture
def recording(tmp_path: Path) -> str:
    file = tmp_path / "recording.jsonl"
    file.write_text("\n".join(LINES))
    return str(file)


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with a life that ended in a kill; its state was saved on the way."""
    monkeypatch.setattr("flagd_server.services.lives.EVENTS_PER_STATE", 10)
    path = tmp_path / "flagd.db"
    world = World(path)
    version = world.release()
    for sequence in range(1, 60):
        failing = {BAD: [sequence]} if sequence > 5 else None
        cells = [cell("on", version, exposures=5, failing=failing)]
        world.report(sequence, [*cells, cell("off", version, exposures=15)])
        if world.is_killed():
            break
    world.close()
    return path


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*arguments: str) -> dict[str, Any]:
        assert main(["backtest", *arguments, "--json"]) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return run


def of_life(database: Path, *arguments: str) -> list[str]:
    return [
        *("--database", str(database), "--environment", ENVIRONMENT, "--flag", FLAG),
        *arguments,
    ]


def test_a_file_alone_is_answered_line_by_line(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backtest", recording]) == 0
    assert capsys.readouterr().out.splitlines() == list(backtest(LINES))


def test_policies_over_a_file_are_one_table(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backtest", recording, "--policy", "alpha=0.2", "--policy", "margin=5"]) == 0
    title, table, reasons, notes = capsys.readouterr().out.split("\n\n")
    assert title == f"{recording}: 20 events in 19 s"
    header, *rows = (re.split(r"  +", row) for row in table.splitlines())
    assert header[:4] == ["policy", "verdict", "after", "at (UTC)"]
    own, bold, wide = (dict(zip(header, row, strict=True)) for row in rows)
    assert (own["policy"], own["verdict"], own["at (UTC)"]) == ("as recorded", "killed", "–")
    assert (bold["policy"], bold["verdict"]) == ("alpha=0.2", "killed")
    assert (wide["policy"], wide["verdict"], wide["after"]) == ("margin=5", "no kill", "–")
    after_s = int(own["after"].removesuffix(" s"))
    assert int(bold["after"].removesuffix(" s")) < after_s
    assert own["exposures"] == str(25 * (after_s + 1))
    assert own["failed"] == own["units"] == str(after_s)
    assert own["excess"] == f"+{after_s}.0"
    assert wide["failed"] == "19"
    assert reasons.startswith(
        f"as recorded, killed after {after_s} s: {after_s} of {after_s} failing"
    )
    assert notes.startswith("Evidence: ")


def test_a_spent_budget_is_named_as_what_killed(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backtest", recording, "--policy", "harm_budget=3"]) == 0
    row = capsys.readouterr().out.splitlines()[4]
    assert re.split(r"  +", row)[:3] == ["harm_budget=3", "killed", "3 s"]
    assert "  harm budget  " in row


def test_standard_input_is_a_file_too() -> None:
    program = "import sys; from flagd_server.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "backtest", "-", "--json"],
        input="\n".join(LINES),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["recording"]["events"] == 20


def test_policies_may_come_from_a_file(
    answer: Callable[..., dict[str, Any]], recording: str, tmp_path: Path
) -> None:
    file = tmp_path / "policies.json"
    file.write_text('{"strict": {"alpha": 0.0001}, "lax": {"margin": 1.5, "control": null}}')
    found = answer(recording, "--policy", str(file), "--policy", "alpha=0.5")["policies"]
    assert [row["name"] for row in found] == ["as recorded", "strict", "lax", "alpha=0.5"]
    assert [row["policy"]["alpha"] for row in found] == [0.001, 0.0001, 0.001, 0.5]
    assert found[2]["policy"]["control"] is None


def test_a_stored_life_is_killed_again_when_it_was(
    answer: Callable[..., dict[str, Any]], killed: Path
) -> None:
    document = answer(*of_life(killed, "--policy", "alpha=0.5", "--policy", "alpha=1e-9"))
    world = World(killed)
    kill = world.configurations.get(ENVIRONMENT, FLAG).configuration.kill
    world.close()
    assert kill is not None

    own, bold, strict = document["policies"]
    assert own["name"] == "as it ran"
    assert datetime.fromisoformat(own["at"]) == kill.at
    assert own["decision"]["reason"] == kill.reason
    assert bold["after_s"] < own["after_s"]
    assert strict["verdict"] == "no kill"
    assert 0.0 < strict["nearness"] < 1.0
    assert document["recording"]["title"] == f"life 1 of {FLAG} in {ENVIRONMENT} (killed)"
    assert len(document["recording"]["notes"]) == 2


def test_a_life_that_runs_is_read_beside_its_server(
    answer: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    world = World(tmp_path / "flagd.db")
    version = world.release()
    world.report(1, [cell("on", version, failing={BAD: [1]}), cell("off", version)])
    document = answer(*of_life(tmp_path / "flagd.db", "--life", "1"))
    world.close()
    assert document["recording"]["title"].endswith("(running)")
    assert document["recording"]["notes"] == []
    assert document["policies"][0]["harm"]["failing_units"] == 1


def test_real_traffic_with_a_fault_kills_and_without_does_not(
    answer: Callable[..., dict[str, Any]],
) -> None:
    (healthy,) = answer("--traffic", TRAFFIC)["policies"]
    assert (healthy["verdict"], healthy["decision"]["treatment"]) == ("no kill", "on")
    document = answer("--traffic", TRAFFIC, "--share", "50", "--fault", "6", "--fault-at", "36000")
    (faulty,) = document["policies"]
    assert faulty["verdict"] == "killed"
    assert faulty["decision"]["stream"] == "error:InjectedFault, life"
    assert faulty["after_s"] > 36_000
    assert document["recording"]["fault_at"] == document["recording"]["started_at"] - 1.0 + 36_000


def test_the_seed_and_the_kind_of_fault_matter(answer: Callable[..., dict[str, Any]]) -> None:
    arguments = ("--traffic", TRAFFIC, "--share", "50", "--fault", "6", "--fault-kind", "old")
    assert answer(*arguments) == answer(*arguments, "--seed", "0")
    assert answer(*arguments) != answer(*arguments, "--seed", "1")
    (old,) = answer(*arguments)["policies"]
    assert "InjectedFault" not in old["decision"]["reason"]


def test_a_plot_is_a_picture_with_every_policy_in_it(recording: str, tmp_path: Path) -> None:
    svg, png = tmp_path / "evidence.svg", tmp_path / "evidence.PNG"
    for path in (svg, png):
        arguments = ["--policy", "margin=5", "--plot", str(path)]
        assert main(["backtest", recording, *arguments]) == 0
    assert png.read_bytes().startswith(b"\x89PNG\r\n")
    words = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))
    assert "20 events in 19 s" in words
    assert "threshold" in words
    assert "when each unit first failed" in words
    assert "s since the start" in words
    assert "evidence E over its threshold" in words
    assert {"“on”", "“off”", "19 units", "0 units"} <= set(words)
    (own,) = [word for word in words if word.startswith("as recorded: killed after ")]
    assert own.endswith("s (error:PaymentError, life)")
    assert any(word.startswith("margin=5: no kill, at most 0.") for word in words)


def test_a_plot_shows_when_the_fault_began_and_is_the_same_again(tmp_path: Path) -> None:
    pictures = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in pictures:
        arguments = ["--traffic", TRAFFIC, "--fault", "6", "--fault-at", "3600"]
        assert main(["backtest", *arguments, "--plot", str(path)]) == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert ">fault</text>" in pictures[0].read_text(encoding="utf-8")


def test_a_plot_of_a_flag_without_control_is_drawn_too(tmp_path: Path) -> None:
    file = tmp_path / "lone.jsonl"
    file.write_text(f'{CONFIG}\n{{"t": 5}}')
    assert main(["backtest", str(file), "--plot", str(tmp_path / "lone.svg")]) == 0


def test_a_plot_without_its_library_says_what_to_install(
    recording: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["backtest", recording, "--plot", str(tmp_path / "a.png")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "pip install 'flagd-release[plots]'" in err
    assert main(["backtest", recording, "--json"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected either a FILE, or --flag, or --traffic"),
        (["FILE", "--traffic", "x.gz"], "expected either a FILE, or --flag, or --traffic"),
        (["FILE", "--life", "1"], "--life: expected only together with --flag"),
        (["FILE", "--database", "x"], "--database: expected only together with --flag"),
        (["FILE", "--share", "5"], "--share: expected only together with --traffic"),
        (
            ["--traffic", "x", "--fault-at", "5"],
            "--fault-at: expected only together with --fault",
        ),
        (["--flag", "x"], "--environment: expected together with --flag"),
        (["FILE", "--plot", "a.jpg"], "--plot: expected a file that ends in .png or .svg, got a.j"),
        (["FILE", "--plot", "none/a.png"], "--plot: can't write none/a.png: No such file"),
        (["FILE", "--policy", "alhpa=1"], "--policy alhpa=1: config: unknown field 'alhpa', exp"),
        (["FILE", "--policy", "alpha"], "--policy alpha: expected key=value, got 'alpha'"),
        (["FILE", "--policy", "none.json"], "can't read none.json: No such file or directory"),
        (["none.jsonl"], "can't read none.jsonl: No such file or directory"),
        (["none.jsonl", "--json"], "can't read none.jsonl: No such file or directory"),
        (["BROKEN"], "BROKEN: line 2: t: expected a finite number, got None"),
        (["BROKEN", "--json"], "BROKEN: line 2: t: expected a finite number, got None"),
        (["BINARY"], "can't read BINARY: 'utf-8' codec can't decode"),
        (["EMPTY", "--json"], "EMPTY: there are no events to try a policy on"),
        (["--traffic", "none.gz"], "can't read none.gz: [Errno 2] No such file or directory"),
        (["--traffic", "FILE"], "can't read FILE: Not a gzipped file"),
        (["--traffic", "CUT"], "can't read CUT: Compressed file ended"),
        (["--traffic", "ODD"], "ODD: line 1: expected a column 'time', got ['a', 'b']"),
        (["--traffic", TRAFFIC, "--share", "0"], "--share: expected a percentage between 0 and"),
        (["--traffic", TRAFFIC, "--share", "nan"], "--share: expected a percentage between 0 an"),
        (["--traffic", TRAFFIC, "--fault", "1"], "--fault: expected a ratio of more than 1, got 1"),
        (
            ["--traffic", TRAFFIC, "--fault", "2", "--fault-at", "-1"],
            "--fault-at: expected seconds, 0 or more, got -1",
        ),
    ],
)
def test_bad_input_is_said_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("\n".join(LINES))
    Path("BROKEN").write_text(f"{CONFIG}\n{{}}")
    Path("BINARY").write_bytes(b"\xff\xff")
    Path("EMPTY").write_text(CONFIG)
    Path("CUT").write_bytes(Path(TRAFFIC).read_bytes()[:1_000])
    Path("ODD").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert main(["backtest", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"flagd-server: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--environment": "moon"}, "there is no environment 'moon'"),
        ({"--flag": "other"}, "there is no flag 'other'"),
        ({"--flag": "calm"}, "calm was never guarded in production"),
        ({"--life": "7"}, "--life: expected one of new-checkout in production (1), got 7"),
        ({"--database": "none.db"}, "can't read the database none.db: unable to open"),
        ({"--database": "text.db"}, "can't read the database text.db: file is not a database"),
    ],
)
def test_what_is_not_in_the_database_is_said_in_one_line(
    changes: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("no database at all, but long enough to be looked at" * 40)
    world = World(Path("flagd.db"))
    version = world.release()
    world.release(flag="calm", guard={"mode": "off"})
    world.report(1, [cell("on", version)])
    world.close()
    given = {"--database": "flagd.db", "--environment": ENVIRONMENT, "--flag": FLAG, **changes}
    arguments = [part for option in given.items() for part in option]
    assert main(["backtest", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"flagd-server: {message}")
    assert err.count("\n") == 1
    assert not Path("none.db").exists()


def test_the_help_shows_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["backtest", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "flagd-server backtest recording.jsonl\n" in shown
    assert '{"strict": {"alpha": 0.0001}' in shown
