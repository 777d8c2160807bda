"""The first lines of a page: what was done, when, and why in one sentence."""

from collections.abc import Iterator

from flagd_server.domain.guard.prose.layout import WIDTH, paragraph
from flagd_server.domain.guard.prose.reading import Comparison, Json, Reading
from flagd_server.domain.guard.prose.words import amount, clean, day_and_time, listed, span

_TITLES = {
    "kill": "switched off by the guard",
    "rollback": "rolled back by the guard",
    "none": "the guard would have switched it off",
    "hold": "harm was found, and its rollout waits",
    "braked": "harm was found, and a person has to decide",
    "deferred": "harm was found, and another flag went off first",
}
_WHAT_FOLLOWED = {
    "kill": "The guard switched the feature off for everyone.",
    "none": "The guard only observes this flag, so nothing was done.",
    "hold": "The policy of this flag is to wait, not to switch off: the feature is still on.",
    "braked": (
        "The feature is still on: too many flags went off within a minute, so the guard has "
        "stopped acting by itself. Please look now: the cause may be something that all these "
        "flags share."
    ),
    "deferred": "The feature is still on: another flag comes first, for the reason below.",
}


def headline(reading: Reading) -> Iterator[str]:
    """Yield the title, when it was, and why."""
    document = reading.document
    if reading.is_running:
        yield from _running(reading)
        return
    action = document["action"]
    yield from _title(f"{reading.name}: {_TITLES.get(action, 'the guard decided')}")
    yield f"  {day_and_time(document['at'])}   report {document['id']}"
    yield ""
    followed = _WHAT_FOLLOWED.get(action, "")
    if action == "rollback":
        followed = _rolled_back(document["rollback"])
    if document.get("not_rolled_back"):
        followed += f" It could not go back instead: {clean(document['not_rolled_back'])}."
    yield from paragraph(f"{why(reading)} {followed}".rstrip())
    yield from _not_told_apart(document.get("shared_salt") or {})


def _rolled_back(done: Json) -> str:
    return (
        f"The guard went back to version {done['to_version']} of the configuration, the last that "
        f"was healthy: “{clean(done['variant'])}” is served to {done['to_percent']:g}% again, not "
        f"to {done['from_percent']:g}%. Should that do harm too, the feature goes off."
    )


def _not_told_apart(shared: Json) -> Iterator[str]:
    """Yield which other flags are served to the very same visitors, where there are any."""
    if len(shared.get("flags", ())) < 2:
        return
    text = (
        f"{listed(shared['flags'])} are served to the very same visitors, so the figures cannot "
        "tell them apart. The one that was changed last is the first to go off"
    )
    if shared.get("goes_first"):
        text += f": {clean(shared['goes_first'])}"
    elif shared.get("decided_on"):
        text += f". What is seen below was counted for {clean(shared['decided_on'])}"
    yield from paragraph(f"{text}.")


def _title(text: str) -> Iterator[str]:
    yield text
    yield "=" * min(WIDTH, len(text))


def _running(reading: Reading) -> Iterator[str]:
    decision = reading.decision
    blind = reading.document.get("blind", ())
    is_held = decision.get("kill") or decision.get("hold")
    guilty = [row for row in reading.document.get("versions", ()) if row["verdict"] == "version"]
    if is_held:
        state = "there are signs of harm"
    elif guilty:
        state = "a version is at fault, not the flag"
    elif blind:
        state = "the guard cannot see enough"
    else:
        state = "no harm seen so far"
    yield from _title(f"{reading.name}: {state}")
    started, at = reading.document.get("life_started_at"), decision.get("t")
    if started is not None and at is not None:
        yield f"  The state now. Watched for {span(max(0.0, at - started))} so far."
    yield ""
    if is_held:
        yield from paragraph(
            "A rollout should wait. What speaks against the flag is strong, but not beyond doubt; "
            "the reason is below."
        )
    elif guilty:
        service, version = (clean(guilty[0].get(name) or "?") for name in ("service", "version"))
        yield from paragraph(
            f"Version {version} of {service} fails more often than the one before, with the "
            "feature and without it. Switching the feature off would not help; going back to the "
            "other version would."
        )
    elif blind:
        yield from paragraph(
            "That nothing was found means little yet. See below what is missing; a staged rollout "
            "waits for it."
        )
    else:
        yield from paragraph(
            "The guard compares visitors with the feature with visitors without it, all the time. "
            "It switches the feature off by itself if that does harm."
        )


def why(reading: Reading) -> str:
    """Return the reason of a decision in one sentence."""
    comparison, harm = reading.comparison, reading.document.get("harm") or {}
    if reading.guard == "harm_budget" and harm:
        return (
            f"The feature has cost about {amount(harm['excess'])} failed requests, and "
            f"its limit is {harm['budget']:,}. That limit counts whatever the score says."
        )
    if reading.guard == "availability" or comparison is None:
        return f"{_sentence(reading.decision.get('reason', 'No reason was kept'))}"
    return _found(comparison)


def _found(comparison: Comparison) -> str:
    having, lacking = comparison.arms
    with_it, without = comparison.units
    if without == 0:
        nobody = "none" if with_it else "no visitor"
        return (
            f"Visitors with “{having}” {comparison.what_happened}, "
            f"and {nobody} with “{lacking}” did."
        )
    return (
        f"Visitors with “{having}” {comparison.what_happened} far more often than visitors "
        f"with “{lacking}”."
    )


def _sentence(text: str) -> str:
    text = clean(text)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
