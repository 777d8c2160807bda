"""What can be set is documented, and what is documented is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    code = (ROOT / "flagd_server" / "config.py").read_text(encoding="utf-8")
    known = set(re.findall(r'"(FLAGD_[A-Z_]+)"', code))
    documented = set(re.findall(r"`(FLAGD_[A-Z_]+)`", README)) - {"FLAGD_ADMIN_TOKEN_FILE"}
    assert documented == known


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
