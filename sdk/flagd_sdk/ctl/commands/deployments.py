"""deployment register, list, show, kill"""

from typing import Any

import click

from flagd_sdk.ctl.api import Json, at
from flagd_sdk.ctl.commands.gates import render_reasons
from flagd_sdk.ctl.commands.kills import (
    receipt_exit,
    render_killed_flags,
    wait_option,
    wait_query,
)
from flagd_sdk.ctl.exits import Exit
from flagd_sdk.ctl.output import Listing, Rendered, plain_table, styled
from flagd_sdk.ctl.session import Session, command, environment_option, root
from flagd_sdk.ctl.wording import time_words

_SHOWN = (
    "service",
    "version",
    "environment",
    "image",
    "commit",
    "url",
    "source",
    "registered_by",
    "registered_at",
    "first_seen_at",
)


@root.group()
def deployment() -> None:
    """Versions of services: what runs where, and which flags they brought."""


@command(deployment)
@environment_option
@click.option("--service", required=True, help="As its processes report it.")
@click.option("--version", required=True, help="As its processes report it, such as the git SHA.")
@click.option("--image", required=True, metavar="NAME@sha256:…", help="By digest, for good.")
@click.option("--commit", help="The source's name in Git.")
@click.option("--link", metavar="URL", help="The pipeline's run, for people.")
def register(session: Session, link: str | None, **body: Any) -> Exit:
    """Register a deployed version. Again is harmless; another image of it is a conflict (4)."""
    given = body | {"url": link}
    sent = {name: value for name, value in given.items() if value is not None}
    done = session.api.post(at("deployments"), sent)
    session.out.show(done, lambda each: [f"{each['id']}: {_named(each)}"])
    return Exit.OK


def _named(each: Json) -> str:
    return f"{each['service']} {each['version']} in {each['environment']}"


@command(deployment, "list")
@click.option("-e", "--environment", help="Only there; everywhere if left out.")
@click.option("--service", help="Only this one's.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
def list_deployments(
    session: Session, environment: str | None, service: str | None, limit: int
) -> Exit:
    """List deployments, newest first."""
    given = {"environment": environment, "service": service}
    query = {name: value for name, value in given.items() if value is not None}
    items = session.api.pages(at("deployments"), limit, **query)
    session.out.show({"items": items}, _render_list)
    return Exit.OK


def _render_list(document: Json) -> Rendered:
    table = Listing(
        "DEPLOYMENT",
        "SERVICE",
        "VERSION",
        "ENVIRONMENT",
        "SINCE",
        "SOURCE",
        nothing="no deployments",
    )
    for each in document["items"]:
        since = time_words(each["registered_at"] or each["first_seen_at"])
        table.add_row(
            each["id"], each["service"], each["version"], each["environment"], since, each["source"]
        )
    yield table


@command(deployment)
@click.argument("deployment_id", metavar="ID")
def show(session: Session, deployment_id: str) -> Exit:
    """Show a deployment with its figures and its verdict."""
    session.out.show(session.api.get(at("deployments", deployment_id)), _render)
    return Exit.OK


def _render(document: Json) -> Rendered:
    yield styled(f"{document['id']}: {_named(document)}", "bold")
    if document.get("health") is not None:
        yield from render_reasons(document["health"])
    table = plain_table("", "")
    table.show_header = False
    for name in _SHOWN:
        if document.get(name) is not None:
            value = document[name]
            shown = time_words(value) if name.endswith("_at") else str(value)
            table.add_row(f"  {name.replace('_', ' ')}", shown)
    for name, value in document.items():
        if name not in (*_SHOWN, "id", "health"):
            for path, words in _leaves(name.replace("_", " "), value):
                table.add_row(f"  {path}", words)
    yield table


def _leaves(path: str, value: Any) -> list[tuple[str, str]]:
    """Return the figures of a part of the document, each with its path: servers may add some."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        parts = {str(index + 1): each for index, each in enumerate(value)}.items()
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        return [(path, "–" if text is None or text == "" else str(text))]
    return [
        leaf for name, each in parts for leaf in _leaves(f"{path} {name.replace('_', ' ')}", each)
    ]


@command(deployment)
@click.argument("deployment_id", metavar="ID")
@click.option("--reason", required=True, help="Stands in the history.")
@wait_option
def kill(session: Session, deployment_id: str, reason: str, wait_s: float | None) -> Exit:
    """Kill every flag that a version brought."""
    path = at("deployments", deployment_id, "kill")
    done = session.api.post(path, {"reason": reason}, query=wait_query(wait_s))
    session.out.show(done, render_killed_flags)
    return receipt_exit(done)
