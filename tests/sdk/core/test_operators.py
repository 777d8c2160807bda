import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from flagd_sdk.core.instants import instant_key
from flagd_sdk.core.operators import compile_operator
from flagd_sdk.errors import ParseError
from tests.sdk.core.documents import attribute, flag_set, targeted


def holds(op: str, values: list[Any], value: object) -> bool:
    return compile_operator("a", op, values)({"a": value}, {})


@pytest.mark.parametrize("value", [["x", "NL"], ("NL",), {"NL", 1}, frozenset({"NL"})])
def test_any_element_of_a_collection_suffices(value: object) -> None:
    assert holds("in", ["NL"], value)
    assert holds("in", ["NL", 7], value)
    assert holds("starts_with", ["N"], value)
    assert holds("ends_with", ["L"], value)
    assert holds("contains", ["L"], value)
    assert holds("matches", ["^N"], value)
    assert not holds("in", ["DE"], value)


def test_elements_count_for_numbers_versions_and_instants() -> None:
    assert holds("gt", [5], [1, 6])
    assert not holds("gt", [5], [1, True, float("inf"), "6"])
    assert holds("semver_gt", ["1.0.0"], ["x", None, "2.0.0"])
    assert holds("after", ["2026-01-01T00:00:00Z"], [0, datetime(2026, 1, 2, tzinfo=UTC)])


@pytest.mark.parametrize("op", ["lt", "lte", "gt", "gte", "eq", "semver_lt", "before", "after"])
def test_no_values_match_nothing(op: str) -> None:
    assert not holds(op, [], 5)
    assert not holds(op, [], "1.0.0")


def test_infinity_is_no_number() -> None:
    for op in ("gt", "gte", "lt", "lte", "eq", "in"):
        assert not holds(op, [5], float("inf"))
        assert not holds(op, [5], float("-inf"))
        assert not holds(op, [5], float("nan"))


def test_large_numbers_are_compared_exactly() -> None:
    assert holds("gt", [2**53], 2**53 + 1)
    assert holds("gt", [1.5], 10**5000)
    assert not holds("eq", [float(2**53)], 2**53 + 1)


# --- instants ----------------------------------------------------------------------------------

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_a_datetime_and_its_text_are_the_same_instant() -> None:
    eastern = NOON.astimezone(timezone(timedelta(hours=-5, minutes=-30)))
    precise = NOON.replace(microsecond=120_000)
    assert instant_key(NOON) == instant_key(eastern) == instant_key("2026-06-01T12:00:00Z")
    assert instant_key(precise) == instant_key("2026-06-01T12:00:00.12Z")
    assert instant_key(NOON) == instant_key("2026-06-01T13:30:00.000+01:30")


def test_fractions_of_any_length_are_exact() -> None:
    earlier, later = (f"2026-06-01T12:00:00.{'0' * 5000}{digit}Z" for digit in "12")
    assert holds("before", [later], earlier)
    assert not holds("before", [earlier], later)


def test_instants_at_the_ends_of_the_calendar_are_compared() -> None:
    assert holds("before", ["0001-01-01T00:00:00Z"], "0001-01-01T00:00:00+00:01")
    latest = datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))
    assert holds("after", ["9999-12-31T23:59:59Z"], latest)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 6, 1, 12),  # noqa: DTZ001 - it must be refused
        NOON.date(),
        NOON.timestamp(),
        "2026-06-01",
        "2026-06-01T12:00:00+0200",
        "٢٠٢٦-06-01T12:00:00Z",
        "0000-01-01T00:00:00Z",
        None,
    ],
)
def test_what_is_no_instant(value: object) -> None:
    assert instant_key(value) is None


# --- RE2 ---------------------------------------------------------------------------------------


def test_a_pattern_that_hangs_other_engines_is_linear() -> None:
    assert not holds("matches", ["^(a+)+$"], "a" * 100_000 + "!")


@pytest.mark.parametrize("pattern", [r"(\pL|\pN){1,300}", r"(\w{1,9}){1,100}\pL{1,99}"])
def test_a_short_pattern_that_would_take_much_memory_is_refused(pattern: str) -> None:
    with pytest.raises(ParseError, match="too large"):
        compile_operator("a", "matches", [pattern])


HOSTILE = r"(\pL|\pN){1,20}"
MEASURE = f"""
import resource
from flagd_sdk.core.operators import compile_operator
compile_operator("a", "matches", ["x"])
def used_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before_mb = used_mb()
conditions = [compile_operator("a", "matches", [r"{HOSTILE}" + str(i)]) for i in range(5)]
texts = ["é1" * 10_000, "^(a+)+$" * 3_000]
for text in texts:
    for condition in conditions:
        condition({{"a": text}}, None)
print((used_mb() - before_mb) / len(conditions))
"""


def test_the_worst_patterns_that_pass_cost_so_much_memory_and_no_more() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(ran.stdout) < 4.0  # MB each, the search's cache included


def test_bad_patterns_leave_stderr_alone() -> None:
    code = (
        "from flagd_sdk.core.operators import compile_operator\n"
        "for pattern in ['(', '[', 'a{9999}', '(?=x)', '(' * 2000]:\n"
        "    try: compile_operator('a', 'matches', [pattern])\n"
        "    except Exception as error: print(type(error).__name__)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["ParseError"] * 5
    assert ran.stderr == ""


def test_a_surrogate_in_a_pattern_is_refused() -> None:
    with pytest.raises(ParseError, match="surrogates"):
        compile_operator("a", "matches", ["\ud800"])


def test_without_re2_only_flags_that_need_it_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from flagd_sdk.core.parsing import parse_flag_set

    monkeypatch.setitem(sys.modules, "re2", None)  # importing it raises ImportError
    flags = parse_flag_set(
        flag_set(targeted(attribute("matches", "x")), targeted(attribute("in", "x"), "g"))
    )
    assert list(flags.faults) == ["f"]
    assert "pip install 'flagd-release[regex]'" in flags.faults["f"]


def test_the_core_loads_neither_re2_nor_dataclasses() -> None:
    code = "import sys, flagd_sdk.core.parsing; print({'re2', 'dataclasses'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
