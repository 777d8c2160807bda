"""What is printed at the end: the figures in words, and how to go on by hand."""

from collections.abc import Iterator

from examples.demo.figures import Figures, Kill
from examples.demo.processes import Cluster


def in_words(figures: Figures) -> Iterator[str]:
    """Yield the closing lines."""
    yield ""
    for name, text in _figures(figures):
        yield f"  {name:<52} {text}"
    yield ""


def _figures(figures: Figures) -> Iterator[tuple[str, str]]:
    old, new = figures.requests["old"], figures.requests["new"]
    yield "requests", f"{old + new:,}, of which {new:,} met the new checkout"
    yield "errors that were there before, in old and new", f"{figures.errors_from_before:,}"
    if not figures.killed:
        yield "killed", "no"
        return
    if figures.seconds_to_kill is not None:
        meanwhile = figures.requests_to_kill
        yield "from the first injected error to the kill", f"{figures.seconds_to_kill:.2f} s"
        yield (
            "  exposures in that time",
            f"{sum(meanwhile.values()):,}, of which {meanwhile['new']:,} met the new checkout",
        )
    if figures.decision_to_last_process_ms is not None:
        delay = f"{figures.decision_to_last_process_ms:.1f} ms"
        yield "from the decision to the last process", delay
    yield "requests that failed because of the flag", f"{figures.failed_by_flag:,}"
    yield (
        "  of these, sent when every process had it off",
        f"{figures.failed_after_last_process:,}",
    )


def report_in_short(kill: Kill) -> Iterator[str]:
    """Yield the beginning of the guard's report: what was done, why, and what was seen."""
    for part in kill.page.split("\n\n")[:_PARTS_OF_REPORT]:
        yield from (f"  │ {line}".rstrip() for line in part.splitlines())
        yield "  │"
    yield "  │ …"
    yield ""


# The title, the reason, what was seen and the table of the two sides.
_PARTS_OF_REPORT = 4


def by_hand(cluster: Cluster, flag_url: str, kill: Kill | None) -> Iterator[str]:
    """Yield commands to paste into another terminal, in this order."""
    json_body = "-H 'Content-Type: application/json' -d"
    yield "The visitors keep coming until Ctrl-C. The place to look around is the admin API, from"
    yield "another terminal:"
    yield ""
    yield f"  FLAG={flag_url}"
    yield f"  AUTH='Authorization: Bearer {cluster.admin_token}'"
    yield ""
    if kill is not None and kill.evidence:
        yield "  # the guard's report as a page for people; without ?format=text it is JSON"
        yield f'  curl -sS "$FLAG/evidence/{kill.evidence["id"]}?format=text" -H "$AUTH"'
    yield "  # how the comparison stands now, and the reports on earlier ones"
    yield '  curl -sS "$FLAG/evidence?format=text" -H "$AUTH"'
    yield "  # every version of the configuration, who made it and why"
    yield '  curl -sS "$FLAG/history" -H "$AUTH"'
    if kill is None:
        yield "  # press the switch yourself; the answer says how many processes have confirmed"
        body = '{"reason": "to see it"}'
        yield f'  curl -sS "$FLAG/kill?wait_s=5" -H "$AUTH" {json_body} \'{body}\''
    else:
        yield "  # serve it again without having mended it: the guard takes it off once more"
        restore = f'{{"kill": "{kill.id}", "reason": "to see what happens"}}'
        yield f'  curl -sS "$FLAG/restore" -H "$AUTH" {json_body} \'{restore}\''
        yield "  # mend the payment provider; a flag that is restored then stays on"
        shops = " ".join(cluster.shops.values())
        yield (
            f"  for shop in {shops}; do"
            f' curl -sS -X PUT "$shop/demo/fault" {json_body} \'{{"share": 0}}\'; done'
        )
    yield ""
