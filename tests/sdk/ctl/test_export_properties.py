"""Whatever a server holds, its export read back is the same."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagd_sdk.ctl.exits import Problem
from flagd_sdk.ctl.gitops.exporting import to_yaml
from flagd_sdk.ctl.yaml_files import read_file

# What JSON in UTF-8 may hold without NUL, as the server takes it.
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_TRICKY = st.sampled_from(
    ["on", "no", "1e3", "0x1F", "1:30", "2027-01-31", "~", "", "-", "01", "=", "<<"]
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    _TEXT,
    _TRICKY,
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.one_of(_TEXT, _TRICKY), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(value=st.dictionaries(st.one_of(_TEXT, _TRICKY), _VALUES, min_size=1, max_size=3))
def test_what_is_written_is_read_back(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "value.yaml"
    path.write_text(to_yaml(value), encoding="utf-8")
    problems: list[Problem] = []
    (document,) = read_file(path, problems)
    assert not problems
    assert _typed(document.value) == _typed(value)


def _typed(value: Any) -> Any:
    """Return the value with the type of each part: 1, 1.0 and True are equal to Python."""
    if isinstance(value, dict):
        return {key: _typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    return type(value).__name__, repr(value)
