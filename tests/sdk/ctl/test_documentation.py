"""docs/flagctl.md says what there is, and what it shows can be typed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from flagd_sdk.ctl import program
from flagd_sdk.ctl.exits import Exit
from flagd_sdk.ctl.gitops.checks import check
from flagd_sdk.ctl.session import root
from tests.sdk.ctl.states import present, sound

TEXT = (Path(__file__).parents[3] / "docs" / "flagctl.md").read_text(encoding="utf-8")


# In an indented block or a script; not in prose.
_COMMAND = re.compile(r"^(?: {4,}| .*run: | .*- |.*: '| +sh ')(flagctl [a-z].*)", re.MULTILINE)


def command_lines() -> Iterator[str]:
    joined = re.sub(r"\n +--", " --", TEXT)  # a script of GitLab goes on over lines
    for line in _COMMAND.findall(joined):
        text = re.sub(r" +#.*|'\)?$", "", line)
        yield from (part.strip() for part in text.split(";"))


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name)


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_what_is_shown_can_be_typed(line: str, tmp_path: Path) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = root
    names = ["flagctl"]
    while isinstance(command, click.Group):
        command, names = command.commands[words[0]], [*names, words.pop(0)]
    command.make_context(" ".join(names), words)


def test_every_command_is_described() -> None:
    assert program.COMMANDS
    described = set(re.findall(r"[a-z]+", TEXT.partition("## Commands")[2]))
    assert [each for each in commands(root) if each[-1] not in described] == []


def test_every_exit_status_is_described() -> None:
    table = TEXT.partition("## Exit status")[2].partition("##")[0]
    described = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M)
                 for number in row.split(", ")}  # fmt: skip
    assert described == {int(each) for each in Exit}


def test_the_file_that_is_shown_can_be_applied(tmp_path: Path) -> None:
    (text,) = [each for each in re.findall(r"```yaml\n(.*?)```", TEXT, re.S) if "flag:" in each]
    assert check(sound(tmp_path, text), present()) == []
