"""Reads a Dockerfile: enough of it to hold ours to rules, and to do what it says without Docker."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

_KNOWN = frozenset(
    """ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN STOPSIGNAL USER VOLUME
    WORKDIR""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str

    @property
    def as_list(self) -> list[str]:
        """The words of the exec form."""
        words = json.loads(self.rest)
        assert isinstance(words, list)
        return words


@dataclass
class Stage:
    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        return [each for each in self.instructions if each.word == word]

    def last(self, word: str) -> Instruction:
        return self.all(word)[-1]

    def pairs(self, word: str) -> dict[str, str]:
        """What ENV or LABEL set."""
        text = " ".join(each.rest for each in self.all(word))
        return {
            name: value.strip('"') for name, value in re.findall(r'([\w.]+)=("[^"]*"|\S*)', text)
        }


def read(path: Path) -> list[Stage]:
    """Return the stages; a word that is not known fails."""
    joined = re.sub(
        r"\\\n\s*",
        "",
        "\n".join(
            line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")
        ),
    )
    stages: list[Stage] = []
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        assert word in _KNOWN, line
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            stages.append(Stage(image, name))
        elif stages:
            stages[-1].instructions.append(Instruction(word, rest.strip()))
    return stages
