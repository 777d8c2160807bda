from pathlib import Path

import pytest

from flagd_sdk.ctl.exits import CommandError, Exit, Problem
from flagd_sdk.ctl.yaml_files import Document, files_under, read_file, read_one


def read(tmp_path: Path, text: str) -> tuple[list[Document], list[str]]:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    problems: list[Problem] = []
    return read_file(path, problems), [str(problem) for problem in problems]


def test_words_that_yaml_1_1_takes_for_booleans_and_dates_are_text(tmp_path: Path) -> None:
    text = "{on: yes, off: no, at: 2027-01-31T12:00:00Z, t: 12:30:00, y: true, z: ~, q: 'true'}"
    (document,), problems = read(tmp_path, text)
    assert not problems
    assert document.value == {
        "on": "yes",
        "off": "no",
        "at": "2027-01-31T12:00:00Z",
        "t": "12:30:00",
        "y": True,
        "z": None,
        "q": "true",
    }


def test_numbers_keep_their_type(tmp_path: Path) -> None:
    (document,), _ = read(tmp_path, "[5, -3, 0.001, 1.0e-05, 1e3, 1_000, 0x10]")
    assert document.value == [5, -3, 0.001, 1e-05, 1000.0, "1_000", "0x10"]
    assert type(document.value[4]) is float


def test_each_value_knows_its_line(tmp_path: Path) -> None:
    text = "flag: x\nenvironments:\n  production:\n    rules:\n      - id: a\n      - id: b\n"
    (document,), _ = read(tmp_path, text)
    name = document.file
    assert document.place("environments.production.rules[1].id").startswith(f"{name}:6: ")
    assert document.line("environments.production.rules[1].serve.split") == f"{name}:6"
    assert document.line("environments.production.guard") == f"{name}:3"


def test_several_documents_are_read_and_empty_ones_left_out(tmp_path: Path) -> None:
    documents, problems = read(tmp_path, "a: 1\n---\n---\nb: 2\n")
    assert [document.value for document in documents] == [{"a": 1}, {"b": 2}]
    assert documents[1].lines["b"] == 4
    assert not problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ":4: 'c' stands here twice"),
        ("a: [1\n", ":2: is no YAML"),
        ("a: !!python/object/apply:os.system ['true']", ":1: the tag"),
        ("a: !!int 5", ":1: the tag"),
        ("? [1]\n: 2\n", ":1: a name that is no text"),
        ("a: " + "9" * 20 + "e999", ":1: 99999999999999999999e999 is too large"),
        ("[" * 70 + "]" * 70, "nested more than 64 deep"),
    ],
)
def test_what_json_could_not_hold_is_named_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    documents, (problem,) = read(tmp_path, text)
    assert message in problem
    assert not documents


def test_aliases_that_double_with_every_line_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    _, (problem,) = read(tmp_path, "\n".join(lines))
    assert "more than 200000 values" in problem


def test_a_file_that_holds_itself_is_refused(tmp_path: Path) -> None:
    _, (problem,) = read(tmp_path, "a: &a [*a]")
    assert "deep" in problem


def test_what_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    problems: list[Problem] = []
    assert read_file(tmp_path / "bytes.yaml", problems) == []
    assert read_file(tmp_path / "none.yaml", problems) == []
    assert [problem.message for problem in problems] == [
        "is no text in UTF-8",
        "No such file or directory",
    ]


def test_a_folder_is_read_with_its_folders_but_nothing_hidden(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "sub/c.json", ".git/d.yaml", "readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = [str(path.relative_to(tmp_path)) for path in files_under(str(tmp_path))]
    assert found == ["a.yaml", "b.yml", "sub/c.json"]
    with pytest.raises(CommandError, match="no such file or folder") as caught:
        files_under(str(tmp_path / "nothing"))
    assert caught.value.exit is Exit.USAGE


def test_a_file_of_one_thing_has_one_document(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("a: 1\n---\nb: 2\n")
    with pytest.raises(CommandError) as caught:
        read_one(str(path))
    assert "2 documents; expected one" in str(caught.value.problems[0])
