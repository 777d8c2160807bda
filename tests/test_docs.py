"""What can be set is documented, and what is documented is there."""

import re
from pathlib import Path

from flagd_server.config.showing import markdown_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_is_the_code_s() -> None:
    assert (
        (ROOT / "docs" / "settings.md")
        .read_text(encoding="utf-8")
        .endswith("\n\n" + markdown_table())
    ), "flagd-server config --markdown prints it"


def test_the_documents_name_no_setting_that_there_is_not() -> None:
    known = set(re.findall(r"`(FLAGD_[A-Z_]+)`", markdown_table()))
    assert set(re.findall(r"`(FLAGD_[A-Z_]+)`", README)) <= known


def test_every_make_target_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|^|\$ )make ([a-z]+)\b", README, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets, named - targets


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    records = {path.name for path in folder.glob("[0-9]*.md")}
    assert set(re.findall(r"\(([0-9]{4}-[^)]+\.md)\)", index)) == records


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.name}: {link}"
