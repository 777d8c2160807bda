from flagd_sdk.ctl.charts import draw_evidence, draw_share


def rows(path: list[tuple[float, float]], threshold: float, width: int = 60) -> list[str]:
    return [line.plain for line in draw_evidence(path, threshold, width=width, height=10)]


def test_evidence_that_grows_rises_through_its_threshold() -> None:
    lines = rows([(0, 1.0), (10, 30.0), (20, 5_000.0)], 1_000.0)
    threshold = next(n for n, line in enumerate(lines) if line.lstrip().startswith("1,000 ┤"))
    highest = next(n for n, line in enumerate(lines) if "━" in line)
    assert highest < threshold
    assert lines[highest].lstrip().startswith("5,000 ┤")
    assert lines[-2].lstrip().startswith("1 ┤━")
    assert lines[-1].split() == ["0s", "20s"]


def test_evidence_far_beyond_leaves_the_threshold_in_sight() -> None:
    lines = rows([(0, 1.0), (10, 1e40)], 1_000.0)
    threshold = next(n for n, line in enumerate(lines) if line.lstrip().startswith("1,000 ┤"))
    assert 3 <= threshold <= 6
    assert "╌" in lines[threshold]
    assert any(line.startswith("  > 1e+06 ┤") for line in lines)
    assert {len(line) for line in lines} == {60}


def test_evidence_below_its_threshold_stays_below_it() -> None:
    lines = rows([(0, 1.0), (10, 30.0)], 1_000.0)
    threshold = next(n for n, line in enumerate(lines) if "1,000" in line)
    assert all("━" not in line for line in lines[: threshold + 1])


def test_what_reached_the_threshold_has_another_colour() -> None:
    drawn = draw_evidence([(0, 1.0), (9, 2_000.0)], 1_000.0, width=60, height=10)
    styles = {str(span.style) for line in drawn for span in line.spans}
    assert {"bold red", "cyan"} <= styles


def test_every_line_fits_the_width() -> None:
    for width in (30, 60, 100):
        path = [(0.0, 0.0), (1.0, 0.5), (86_400.0, 1e12)]
        assert {len(line) for line in rows(path, 1_000.0, width)} == {width}


def test_a_single_point_zero_and_infinity_are_drawn() -> None:
    for path in ([(5.0, 1.0)], [(5.0, 0.0)], [(5.0, 0.0), (6.0, float("inf"))]):
        assert any("━" in line for line in rows(path, 1_000.0))


def test_a_share_is_as_long_as_it_is_of_the_greatest() -> None:
    assert draw_share(0.1, 0.2, 10, "red").plain == "█████░░░░░"
    assert draw_share(0.2, 0.2, 10, "red").plain == "██████████"
    assert draw_share(0.0, 0.0, 4, "red").plain == "░░░░"


def test_a_share_that_is_tiny_is_still_seen() -> None:
    assert draw_share(1e-9, 1.0, 4, "red").plain == "█░░░"
