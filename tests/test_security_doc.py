"""What SECURITY.md says is shown by a test, is: each exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)((?:::\w+)*)`")


def test_each_test_that_is_named_exists() -> None:
    found = NAMED.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(found) > 20
    for path, names in found:
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in filter(None, names.split("::")):
            assert re.search(rf"(def|class) {name}\b", text), f"{path}::{name}"
