"""What was seen, and how sure that makes the guard."""

from collections.abc import Iterator

from flagd_server.domain.guard.prose.chart import chart
from flagd_server.domain.guard.prose.layout import heading, paragraph, table
from flagd_server.domain.guard.prose.reading import (
    Comparison,
    Json,
    Reading,
    kind_of,
    stream_in_words,
)
from flagd_server.domain.guard.prose.words import (
    amount,
    clean,
    clock,
    counted,
    fraction,
    odds,
    percent,
    times,
)

_STREAMS_SHOWN, _OTHERS_SHOWN = 3, 3
_KINDS_SHOWN = 4
_NAME_SHOWN = 38
_TOSSES_SHOWN = 120
_TOSSES_A_GROUP, _GROUPS_A_LINE = 10, 6
# A score that has never been above this has gone nowhere yet.
_WORTH_DRAWING = 10.0


def seen(reading: Reading) -> Iterator[str]:
    """Yield what was seen, in a sentence and in a table of the two arms."""
    comparison = reading.comparison
    if comparison is None:
        return
    yield from heading("What was seen")
    yield from paragraph(_in_a_sentence(comparison))
    having, lacking = comparison.arms
    treatment, control = comparison.row["treatment"], comparison.row["control"]
    yield ""
    yield from table(
        [
            ("", f"with “{having}”", f"with “{lacking}”"),
            ("requests", f"{treatment['exposures']:,}", f"{control['exposures']:,}"),
            ("of these failed", f"{treatment['errors']:,}", f"{control['errors']:,}"),
            ("share", percent(treatment["error_rate"]), percent(control["error_rate"])),
            (_counted_visitors(comparison), *(f"{units:,}" for units in comparison.units)),
        ]
    )
    yield from _since(reading, comparison)


def _counted_visitors(comparison: Comparison) -> str:
    kind = comparison.kind
    return f"visitors {comparison.who}" if kind is None else f"visitors with {kind[:_NAME_SHOWN]}"


def _in_a_sentence(comparison: Comparison) -> str:
    with_it, without = comparison.units
    having, _ = comparison.arms
    total = with_it + without
    slow = ""
    if comparison.is_slow:
        rank = comparison.metric.rpartition("p")[2]
        slow = f" Slow means: slower than {rank} of 100 requests are without the feature."
    if total == 0:
        return f"There is no visitor {comparison.who} yet.{slow}"
    expected = fraction(comparison.row["expected_share"])
    if total == 1:
        had = "had" if with_it else "did not have"
        return f"The one visitor {comparison.who} {had} “{having}”.{slow}"
    part = f"All {total:,}" if without == 0 else f"{with_it:,} of the {total:,}"
    found = f"{part} visitors {comparison.who}"
    chance = comparison.row["chance"]
    if chance > 0.05:
        luck = "That is what chance does."
    else:
        luck = f"The odds of so many by chance: {odds(chance)}."
    return (
        f"{found} had “{having}”. If the feature did no harm, about {expected} of them would have "
        f"had it. {luck}{slow}"
    )


def _since(reading: Reading, comparison: Comparison) -> Iterator[str]:
    started, opened = reading.document.get("life_started_at"), comparison.opened_at
    if started is None:
        return
    t = reading.decision.get("t")
    since = f"Counted since {clock(started, near=t)} UTC"
    if opened is not None and not comparison.row["stream"].endswith(", life"):
        since += f", visitors since {clock(opened, near=t)}"
    yield from paragraph(f"{since}; a visitor is counted once.")


def how_sure(reading: Reading) -> Iterator[str]:
    """Yield the score against its threshold in words, the effect, and the path as a chart."""
    comparison = reading.comparison
    if comparison is None:
        return
    row = comparison.row
    yield from heading("How sure is that")
    yield from paragraph(
        "The guard keeps score. Each such visitor with the feature raises the score, each without "
        "it lowers it; harmless features stay around 1. The score "
        f"{'is' if reading.is_running else 'was'} {amount(row['e_value'])}; the guard acts at "
        f"{amount(row['threshold'])}. {_error_budget(reading)}"
    )
    witness = row.get("rate_witness")
    if witness is not None and row["e_value"] >= row["threshold"]:
        needed = row.get("rate_witness_needed", 10.0)
        agrees = "It agrees" if witness >= needed else "It does not agree"
        yield from paragraph(
            "A second score allows for a feature whose visitors simply ask more often. "
            f"{agrees}: {amount(witness)}, where {amount(needed)} is needed."
        )
    if row.get("held_back"):
        has = "has" if reading.is_running else "had"
        yield from paragraph(f"The guard {has} not acted on it: {clean(row['held_back'])}.")
    if sum(comparison.units):
        yield from paragraph(_effect(comparison))
    yield from _path(reading, row)


def _error_budget(reading: Reading) -> str:
    alpha = (reading.document.get("policy") or {}).get("alpha")
    if not alpha:
        return ""
    return (
        f"Of {amount(1 / alpha)} harmless features, each watched for a week, at most about one "
        "gets there."
    )


def _effect(comparison: Comparison) -> str:
    having, lacking = comparison.arms
    interval = comparison.row.get("ratio_interval") or {}
    verb = "are slowed" if comparison.is_slow else "fail"
    low, high, confidence = (interval.get(name) for name in ("low", "high", "confidence"))
    text = (
        f"Best estimate: visitors with “{having}” {verb} {times(comparison.row['ratio'])}"
        f"{' as visitors with' if comparison.row['ratio'] else ' as with'} “{lacking}”"
    )
    if confidence is None:
        return f"{text}."
    if low and high is not None:
        bounds = f"between {amount(low)} and {amount(high)} times"
    elif low:
        bounds = f"at least {amount(low)} times, with no upper limit in sight"
    elif high is not None:
        bounds = f"at most {amount(high)} times"
    else:
        return f"{text}. There is too little to say how far off that may be."
    return f"{text}; {bounds}, with {100 * confidence:.0f}% confidence."


def _path(reading: Reading, row: Json) -> Iterator[str]:
    path = row.get("path", ())
    if max((point["e_value"] for point in path), default=0.0) < _WORTH_DRAWING:
        return
    yield ""
    yield from chart([point["e_value"] for point in path], row["threshold"])
    t = reading.decision.get("t")
    first, last = (clock(point["t"], near=t) for point in (path[0], path[-1]))
    yield from paragraph(f"The score, event by event, from {first} to {last}.")


def events(reading: Reading) -> Iterator[str]:
    """Yield the visitors as they failed, kind by kind, and where the other scores stand."""
    comparison = reading.comparison
    if comparison is None or not comparison.row.get("tosses"):
        return
    having, lacking = comparison.arms
    what = "were slowed" if comparison.is_slow else "failed"
    yield from heading(f"The visitors as they {what}")
    yield from paragraph(f"T had “{having}”, C had “{lacking}”.")
    of_kind: dict[str, list[Json]] = {}
    for toss in comparison.row["tosses"]:
        of_kind.setdefault(toss["kind"], []).append(toss)
    loudest = sorted(of_kind, key=lambda kind: -len(of_kind[kind]))
    for kind in loudest[:_KINDS_SHOWN]:
        yield from _fallen(kind, of_kind[kind], having, reading.decision.get("t"))
    if len(loudest) > _KINDS_SHOWN:
        yield from paragraph(f"and {len(loudest) - _KINDS_SHOWN} rarer kinds")
    yield from _scores(comparison)


def _fallen(kind: str, tosses: list[Json], having: str, t: float | None) -> Iterator[str]:
    shown = tosses[-_TOSSES_SHOWN:]
    first, last = (clock(toss["t"], near=t) for toss in (shown[0], shown[-1]))
    left_out = "" if shown == tosses else f", the last {len(shown)} of {len(tosses)}"
    name = "slow" if kind.startswith("slow:") else kind_of(f"{kind}, ") or clean(kind)
    when = first if first == last else f"{first} to {last}"
    yield from paragraph(f"{name}, {when}{left_out}")
    letters = "".join("T" if clean(toss["variant"]) == having else "C" for toss in shown)
    groups = [letters[k : k + _TOSSES_A_GROUP] for k in range(0, len(letters), _TOSSES_A_GROUP)]
    for k in range(0, len(groups), _GROUPS_A_LINE):
        yield f"    {' '.join(groups[k : k + _GROUPS_A_LINE])}"


def _scores(comparison: Comparison) -> Iterator[str]:
    streams = sorted(
        (
            row
            for row in comparison.row.get("streams", ())
            if row["name"] != comparison.row["stream"]
        ),
        key=lambda row: row["threshold"] / max(row["e_value"], 1e-300),
    )
    if not streams:
        return
    yield ""
    yield from table(
        [
            ("other scores", "T", "C", "score", "acts at"),
            *(
                (
                    _short_name(row["name"]),
                    f"{row['treatment_units']:,}",
                    f"{row['control_units']:,}",
                    amount(row["e_value"]),
                    amount(row["threshold"]),
                )
                for row in streams[:_STREAMS_SHOWN]
            ),
        ]
    )


def _short_name(stream: str) -> str:
    name = stream_in_words(stream)
    if len(name) > _NAME_SHOWN:
        what, _, since = name.partition(" (")[0].rpartition(", ")
        room = _NAME_SHOWN - len(since) - 2
        name = f"{what if len(what) <= room else f'{what[: room - 1]}…'}, {since}"
    return name


def also_compared(reading: Reading) -> Iterator[str]:
    """Yield a line for each other comparison of the flag."""
    if not reading.others:
        return
    yield from heading("Also compared")
    for other in reading.others[:_OTHERS_SHOWN]:
        having, lacking = other.arms
        with_it, without = other.units
        found = f"{counted(with_it, 'visitor')} with “{having}”, {without:,} with “{lacking}”"
        yield from paragraph(
            f"{stream_in_words(other.row['stream'])}: {found if with_it + without else 'nobody'}; "
            f"score {amount(other.row['e_value'])}, the guard acts at "
            f"{amount(other.row['threshold'])}",
            hanging="  ",
        )
