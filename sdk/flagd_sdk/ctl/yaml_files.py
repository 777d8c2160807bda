"""YAML (or JSON) files → values that JSON can hold, each with the line it stands on.

Read as YAML 1.2: `on`, `off`, `yes` and `no` are text, as the names of variants should be, and so
are dates. A name that stands twice in a mapping is a fault, not the last one's win.
"""

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from flagd_sdk.ctl.exits import CommandError, Exit, Problem

MAX_FILE_BYTES = 4 * 1024 * 1024
# Aliases are written out, and may double with every line.
MAX_NODES = 200_000
MAX_DEPTH = 64
SUFFIXES = (".yaml", ".yml", ".json")

_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_TEXT, _LIST, _MAPPING = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


class Document(NamedTuple):
    """One document of a file.

    Attributes:
        lines: path within it → line, from 1. A path is "environments.production.rules[0].id".
    """

    file: str
    value: Any
    lines: Mapping[str, int]

    def place(self, path: str) -> str:
        """Return "file:line: path"."""
        return self.line(path) + (f": {path}" if path else "")

    def line(self, path: str) -> str:
        """Return "file:line" of a path, or of the nearest that is there."""
        near = path
        while near not in self.lines and near:
            near = near[: max(near.rfind("."), near.rfind("["), 0)]
        return f"{self.file}:{self.lines.get(near, 1)}"


class _Loader(yaml.SafeLoader):
    """Composes only; what a plain word means is decided here and not by YAML 1.1."""


_Loader.yaml_implicit_resolvers = {}


class _FaultError(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def files_under(path: str) -> list[Path]:
    """Return a file, or all of a folder and its folders that could be read, sorted.

    Raises:
        CommandError: there is no such thing.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise CommandError(f"{path}: there is no such file or folder", Exit.USAGE)
    return sorted(
        each
        for each in root.rglob("*")
        if each.suffix in SUFFIXES
        and each.is_file()
        and not any(part.startswith(".") for part in each.relative_to(root).parts)
    )


def read_one(path: str) -> Document:
    """Return the only document of a file.

    Raises:
        CommandError: it can't be read, or has another number of documents.
    """
    problems: list[Problem] = []
    documents = read_file(Path(path), problems)
    if not problems and len(documents) != 1:
        problems.append(Problem(path, f"{len(documents)} documents; expected one"))
    if problems:
        raise CommandError(f"{path} can't be used", Exit.USAGE, problems)
    return documents[0]


def read_file(path: Path, problems: list[Problem]) -> list[Document]:
    """Return the documents of a file, without empty ones; what is wrong is added to `problems`."""
    name = str(path)
    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            problems.append(Problem(name, f"more than {MAX_FILE_BYTES} bytes"))
            return []
        # list: a file is checked to its end.
        nodes = list(yaml.compose_all(data.decode("utf-8-sig"), Loader=_Loader))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(name, getattr(error, "strerror", None) or "is no text in UTF-8"))
        return []
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        why = " ".join(part for part in (error.context, error.problem) if part)
        problems.append(Problem(f"{name}:{line}", f"is no YAML: {why}"))
        return []
    except (yaml.YAMLError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error).split("\n")[0]
        problems.append(Problem(name, f"is no YAML: {why}"))
        return []
    documents = []
    for node in nodes:
        lines: dict[str, int] = {}
        try:
            value = _value(node, "", lines, iter(range(MAX_NODES)), 0)
        except _FaultError as fault:
            problems.append(Problem(f"{name}:{fault.line}", str(fault)))
            continue
        if value is not None:
            documents.append(Document(name, value, lines))
    return documents


def _value(
    node: yaml.Node, path: str, lines: dict[str, int], budget: Iterator[int], depth: int
) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if next(budget, None) is None:
        raise _FaultError(line, f"more than {MAX_NODES} values, aliases written out")
    if depth > MAX_DEPTH:
        raise _FaultError(line, f"nested more than {MAX_DEPTH} deep")
    if node.tag not in (_TEXT, _LIST, _MAPPING):
        raise _FaultError(line, f"the tag {node.tag}; expected plain values")
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _plain(node.value, line)
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(each, f"{path}[{index}]", lines, budget, depth + 1)
            for index, each in enumerate(node.value)
        ]
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, at = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise _FaultError(at, "a name that is no text")
        if key in made:
            raise _FaultError(at, f"{key!r} stands here twice")
        inner = f"{path}.{key}" if path else key
        lines[inner] = at
        made[key] = _value(value_node, inner, lines, budget, depth + 1)
    return made


def is_read_as_text(text: str) -> bool:
    """Tell whether a text that is written without quotes is read as that text."""
    return text not in _WORDS and not _INTEGER.fullmatch(text) and not _FLOAT.fullmatch(text)


def _plain(text: str, line: int) -> Any:
    """Return what a plain scalar means (YAML 1.2, section 10.3.2, the core schema)."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 40:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not isfinite(number):
            raise _FaultError(line, f"{text} is too large")
        return number
    return text
