"""What surrounds the figures: errors, versions, blind spots, the configuration, the aftermath."""

from collections.abc import Iterator

from flagd_server.domain.guard.aftermath import slow_quantile
from flagd_server.domain.guard.prose.layout import WIDTH, heading, paragraph, table
from flagd_server.domain.guard.prose.reading import Json, Reading
from flagd_server.domain.guard.prose.words import (
    amount,
    clean,
    counted,
    day_and_time,
    listed,
    milliseconds,
    percent,
    small,
    span,
)
from flagd_server.domain.times import parse_time

_ERRORS_SHOWN, _VERSIONS_SHOWN = 3, 4
_SAMPLE_SHOWN = 70
_VERDICTS = {
    "flag": "the flag is to blame, not a version",
    "version": "version {version} is to blame, not the flag",
    "both": "the flag and version {version} are to blame",
    "flag on this version only": "the flag hurts on version {version} only",
    "neither": "neither the flag nor a version is to blame",
    "cannot tell yet": "it cannot be told yet whether a version is to blame",
}
_BLIND = {
    "no control": "there is nobody to compare with",
    "no summaries": "nobody reports",
    "one arm silent": "one side is silent",
    "too few events": "too few visitors yet",
    "sample ratio": "visitors are not split as configured",
}
_STEPS = (
    ("first_failure", "the first visitor failed"),
    ("received", "the report that decided came in"),
    ("decided", "the guard decided"),
    ("committed", "the decision was on disk"),
    ("sent", "it was sent to every process"),
    ("last_confirmation", "the last process confirmed"),
)


def cost(reading: Reading) -> Iterator[str]:
    """Yield how many requests the feature has cost."""
    harm = reading.document.get("harm")
    if not harm or reading.comparison is None:
        return
    budget, excess = harm.get("budget"), harm["excess"]
    is_proved = reading.decision["kill"] or reading.decision["hold"]
    if budget is None and not is_proved:
        return  # an excess that chance explains is no cost
    yield from heading("What it cost")
    text = f"About {amount(excess)} requests failed that would not have failed without the feature."
    if not reading.comparison.row["control"]["exposures"]:
        text = "Nobody was without the feature yet, so nobody can tell."
    elif excess < 0.5:
        text = "Requests fail no more often with the feature than without it."
    elif not is_proved:
        text = (
            f"About {amount(excess)} more requests failed with the feature than at the rate "
            "without it. Chance alone may do that."
        )
    if budget is not None:
        text += f" The feature may cost {budget:,} before it goes off in any case."
    yield from paragraph(text)


def errors(reading: Reading) -> Iterator[str]:
    """Yield the kinds of errors that came with the feature, with where, and a sample."""
    rows = reading.document.get("error_kinds", ())
    if not rows:
        return
    having = reading.decision.get("treatment")
    own = [row for row in rows if having in (None, row["variant"])]
    counts: dict[str, int] = {}
    for row in rows:
        if row not in own:
            counts[row["kind"]] = counts.get(row["kind"], 0) + row["count"]
    if not own:
        return
    # What only the feature shows comes first.
    own.sort(key=lambda row: (row["kind"] in counts, -row["count"]))
    yield from heading("The errors" if having is None else "The errors with the feature")
    for row in own[:_ERRORS_SHOWN]:
        kind = clean(row["kind"]).removeprefix("error:")
        without = counted(counts[row["kind"]], "time") if row["kind"] in counts else "never"
        elsewhere = "" if having is None else f", {without} without the feature"
        yield from paragraph(f"{kind}: {counted(row['count'], 'time')}{elsewhere}")
        sample = clean(row["sample"]).removeprefix(f"{kind}: ")[:_SAMPLE_SHOWN]
        if sample and sample not in (kind, f"status {kind}"):
            yield f"    “{sample}”"
        if row["where"]:
            yield f"    at {_end_of(clean(row['where']), WIDTH - 7)}"
    if len(own) > _ERRORS_SHOWN:
        yield from paragraph(f"and {small(len(own) - _ERRORS_SHOWN)} more")


def _end_of(place: str, characters: int) -> str:
    """Return a place cut on the left: its end is what tells it from others."""
    return place if len(place) <= characters else f"…{place[-characters + 1 :]}"


def objectives(reading: Reading) -> Iterator[str]:
    """Yield what each service has promised, and how far that is kept under this flag."""
    rows = reading.document.get("availability", ())
    if not rows:
        return
    yield from heading("What was promised")
    for row in rows:
        allowed = 1.0 - row["objective"]
        failed = row["errors"] / row["exposures"] if row["exposures"] else 0.0
        score = max(row["missed_e_value"], row["fast_burn_e_value"])
        text = (
            f"{clean(row['service']) or 'the service'}: at most {percent(allowed)} of requests may "
            f"fail. Under this flag {percent(failed)} of {row['exposures']:,} did, with everybody "
            f"counted. The score that the promise is broken: {amount(score)}"
        )
        if reading.guard == "availability":
            text += f"; the guard acts at {amount(reading.decision['threshold'])}"
        yield from paragraph(f"{text}.", hanging="  ")


def versions(reading: Reading) -> Iterator[str]:
    """Yield the verdict on the versions of each service, and the figures behind it."""
    verdicts = reading.document.get("versions", ())
    if not verdicts:
        return
    yield from heading("Flag or version?")
    for row in verdicts[:_VERSIONS_SHOWN]:
        service = clean(row["service"]) or "the service"
        verdict = _VERDICTS.get(row["verdict"], clean(row["verdict"]))
        verdict = verdict.replace("{version}", clean(row.get("version") or "without a name"))
        text = f"{service}: {verdict}. {_because(row)}"
        if row["verdict"] == "cannot tell yet" and row.get("older") is None:
            only = clean(row.get("newer") or "without a name")
            text = (
                f"{service}: only version {only} is running, so there is none to compare it with."
            )
        yield from paragraph(text, hanging="  ")


def _because(row: Json) -> str:
    reason = clean(row.get("reason", ""))
    return (
        f"{reason[:1].upper()}{reason[1:]}{'' if reason.endswith('.') else '.'}" if reason else ""
    )


def limits(reading: Reading) -> Iterator[str]:
    """Yield what the guard could not see, and whom it did not believe."""
    blind, aside = reading.document.get("blind", ()), reading.document.get("set_aside", ())
    if blind:
        yield from heading("What the guard cannot see")
        for row in blind:
            reason = _BLIND.get(row["reason"], clean(row["reason"]))
            yield from paragraph(f"{reason}: {clean(row['detail'])}", hanging="  ")
    if aside:
        yield from heading("Reports that were not believed")
        for row in aside:
            yield from paragraph(
                f"{row['who']} {clean(row['name'])}: {row['units']:,} failing visitors in "
                f"{row['exposures']:,} requests is out of all proportion to what others report. "
                "Somebody should look at it.",
                hanging="  ",
            )


def configuration(reading: Reading) -> Iterator[str]:
    """Yield which version of the configuration was judged, whose it is, and by what policy."""
    document = reading.document
    version, policy = document.get("configuration"), document.get("policy") or {}
    yield from heading("Configuration")
    if version:
        yield from paragraph(
            f"Version {version['version']}, by “{clean(version['actor'])}” "
            f"({clean(version['action'])}), {day_and_time(version['at'])}."
        )
    elif "configuration_version" in document:
        yield from paragraph(f"Version {document['configuration_version']}.")
    if policy:
        mode = {"enforce": "acts by itself", "observe": "only observes"}.get(
            document.get("mode", "")
        )
        watched = policy.get("guards")
        texts = [f"the guard {mode}"] if mode else []
        if watched:
            texts.append(f"it watches {listed(name.replace('_', ' ') for name in watched)}")
        texts.append(f"it tolerates {100 * (policy['margin'] - 1):.3g}% more failing visitors")
        text = "; ".join(texts)
        yield from paragraph(f"{text[:1].upper()}{text[1:]}.")


def told(reading: Reading) -> Iterator[str]:
    """Yield who has been told of the kill, and how long each step took."""
    for note in reading.notes("told"):
        document = note["document"]
        yield from heading("Who was told")
        processes, confirmed = document["processes"], document["confirmed"]
        what = "that the feature is off" if _action(reading) != "rollback" else "the rollback"
        text = f"{confirmed:,} of {processes:,} processes confirmed {what}"
        reached = document["confirmed_after_ms"]
        times = [
            f"{name} after {milliseconds(reached[key])}"
            for key, name in (("50", "half"), ("99", "99 in 100"), ("100", "all"))
            if reached.get(key) is not None and not (key == "99" and processes < 100)
        ]
        yield from paragraph(f"{text}{': ' if times else ''}{listed(times)}.")
        if document["unconfirmed"]:
            names = listed(document["unconfirmed"])
            yield from paragraph(f"Not confirmed yet at that time: {names}.")
        yield from _steps(document["steps"])


def _steps(steps: Json) -> Iterator[str]:
    known = [(steps[key], text) for key, text in _STEPS if steps.get(key) is not None]
    rows = []
    decided = parse_time(steps["decided"])
    for at, text in known:
        after_s = (parse_time(at) - decided).total_seconds()
        if at == steps["decided"] and text == dict(_STEPS)["decided"]:
            when = "0"
        elif after_s < 0:
            when = f"{_length(-after_s)} before"
        else:
            when = f"{_length(after_s)} after"
        rows.append((parse_time(at).strftime("%H:%M:%S.%f")[:-3], text, when))
    yield from table(rows, left=2)


def _length(seconds: float) -> str:
    return milliseconds(1_000 * seconds) if seconds < 1 else span(seconds)


def aftermath(reading: Reading) -> Iterator[str]:
    """Yield whether the kill or the rollback has helped, as far as is known."""
    action = _action(reading)
    if action not in ("kill", "rollback"):
        return
    notes = reading.notes("aftermath")
    yield from heading("Did it help?")
    if not notes:
        yield from paragraph(
            f"Nothing is noted yet; it is looked at 2 and 10 minutes after the {action}."
        )
    verb = "were slow" if slow_quantile(reading.decision["stream"]) else "failed"
    for note in sorted(notes, key=lambda note: -note["window_s"])[:1]:
        document = note["document"]
        before, after, expected = (document[name] for name in ("before", "after", "expected_share"))
        than = "without the feature" if action == "kill" else "were to be expected now"
        without = "" if expected is None else f", {percent(expected)} {than}"
        yield from paragraph(
            f"{_OUTCOMES[document['outcome']].format(action=action)} In the "
            f"{span(note['window_s'])} after the {action} "
            f"{percent(after['share'])} of the flag's {counted(after['exposures'], 'request')} "
            f"{verb}; in the ten minutes before it was {percent(before['share'])}{without}."
        )


def _action(reading: Reading) -> str:
    return str(reading.document.get("action"))


_OUTCOMES = {
    "fell": "Yes.",
    "did not fall": "No, the {action} did not help: look elsewhere first.",
    "cannot tell": "That cannot be told from the figures.",
}
