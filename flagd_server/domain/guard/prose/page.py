"""The page: its parts in the order in which a reader asks."""

from collections.abc import Iterator, Sequence

from flagd_server.domain.guard.prose import circumstances, figures
from flagd_server.domain.guard.prose.headline import headline
from flagd_server.domain.guard.prose.layout import heading, paragraph
from flagd_server.domain.guard.prose.reading import Json, Reading
from flagd_server.domain.guard.prose.words import clean, day_and_time

_PARTS = (
    headline,
    figures.seen,
    circumstances.cost,
    circumstances.errors,
    circumstances.aftermath,
    figures.how_sure,
    figures.events,
    figures.also_compared,
    circumstances.objectives,
    circumstances.versions,
    circumstances.limits,
    circumstances.told,
    circumstances.configuration,
)


def page(document: Json) -> str:
    """Return the page for a report, or for the running state of a flag under guard.

    Args:
        document: as in the API, with `flag` and `environment` named; keys that older reports
            lack are left out of the page.
    """
    reading = Reading.of(document)
    lines = [line for part in _PARTS for line in part(reading)]
    return "\n".join(lines) + "\n"


def page_without_guard(environment: str, flag: str) -> str:
    """Return the page for a flag that the guard does not watch now."""
    title = f"{clean(flag)} in {clean(environment)}: not watched now"
    lines = [title, "=" * len(title)]
    lines += paragraph(
        "The guard compares visitors with a feature with visitors without it. It does not watch "
        "this flag now, because the flag is off or killed, because everyone gets the same, or "
        "because its guard is off."
    )
    return "\n".join(lines) + "\n"


def held_off_in(processes: int) -> str:
    """Return a word on processes that hold the flag off by themselves; empty without any."""

    def lines() -> Iterator[str]:
        yield from heading("Off by local breakers")
        yield from paragraph(
            f"In {processes} {'process' if processes == 1 else 'processes'} the flag is off by the "
            "evidence of that process alone, until the flag changes or somebody lifts it."
        )

    return "\n".join(lines()) + "\n" if processes else ""


def earlier_reports(reports: Sequence[Json]) -> str:
    """Return the list of reports that stands below the present state; empty without any."""

    def lines() -> Iterator[str]:
        yield from heading("Reports on earlier decisions")
        for report in reports:
            yield f"  {report['id']}   {day_and_time(report['at'])}   {_DONE[report['action']]}"

    return "\n".join(lines()) + "\n" if reports else ""


_DONE = {
    "kill": "switched off",
    "rollback": "rolled back",
    "none": "observed only",
    "hold": "put on hold",
    "braked": "left to a person",
    "deferred": "another flag went first",
}
