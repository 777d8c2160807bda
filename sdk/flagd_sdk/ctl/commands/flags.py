"""list, show, create"""

import json
from typing import Any

import click
from rich.text import Text

from flagd_sdk.ctl.api import Json, at
from flagd_sdk.ctl.exits import CommandError, Exit
from flagd_sdk.ctl.output import Listing, Rendered, plain_table, styled
from flagd_sdk.ctl.session import (
    Session,
    command,
    environment_option,
    flag_argument,
    root,
)
from flagd_sdk.ctl.wording import (
    STATE_STYLES,
    condition_words,
    kill_words,
    serve_words,
    served_words,
    state_words,
    time_words,
)


@command(root, "list")
@environment_option
@click.option("--tag", help="Only flags that carry it.")
@click.option("--archived", is_flag=True, help="The archived ones instead.")
def list_flags(session: Session, environment: str, tag: str | None, archived: bool) -> Exit:
    """List the flags and how each behaves in an environment."""
    query = {"archived": "true" if archived else "false"} | ({"tag": tag} if tag else {})
    keys = [flag["key"] for flag in session.api.get(at("flags"), **query)["items"]]
    if not keys:
        session.api.get(at("environments", environment))  # is there such a one?
    flags = session.api.get_all(at("flags", key) for key in keys)
    items = []
    for flag in flags:
        configurations = flag.pop("configurations")
        if environment not in configurations:
            raise CommandError(f"there is no environment {environment!r}", status=404)
        items.append(flag | {"configuration": configurations[environment]})
    session.out.show({"environment": environment, "items": items}, _render_list)
    return Exit.OK


def _render_list(document: Json) -> Rendered:
    table = Listing(
        "FLAG", "STATE", "SERVES", "GUARD", "OWNER", "TAGS", "VERSION", nothing="no flags"
    )
    for flag in document["items"]:
        configuration = flag["configuration"]
        state = state_words(configuration)
        table.add_row(
            flag["key"],
            styled(state, STATE_STYLES[state]),
            served_words(configuration),
            configuration["guard"]["mode"],
            flag["owner"],
            " ".join(flag["tags"]),
            str(configuration["version"]),
        )
    yield table


@command(root)
@flag_argument
@click.option("-e", "--environment", help="Only there; everywhere if left out.")
def show(session: Session, flag: str, environment: str | None) -> Exit:
    """Show a flag and how it behaves in each environment."""
    document = session.api.get(at("flags", flag))
    if environment is not None:
        if environment not in document["configurations"]:
            raise CommandError(f"there is no environment {environment!r}", status=404)
        document["configurations"] = {environment: document["configurations"][environment]}
    session.out.show(document, _render_flag)
    return Exit.OK


def _render_flag(flag: Json) -> Rendered:
    yield Text.assemble((flag["key"], "bold"), f"  {flag['type']}, {flag['lifetime']}")
    if flag["description"]:
        yield f"  {flag['description']}"
    table = plain_table("", "")
    table.show_header = False
    for name, value in flag["variants"].items():
        table.add_row(f"  {name}", json.dumps(value, ensure_ascii=False))
    yield table
    for name in ("owner", "expires_at"):
        if flag[name]:
            yield f"  {name.replace('_', ' ')}: {flag[name]}"
    if flag["tags"]:
        yield f"  tags: {' '.join(flag['tags'])}"
    if flag["archived"]:
        yield styled("  archived: applications get their own default", "yellow")
    for environment, configuration in flag["configurations"].items():
        yield from _render_configuration(environment, configuration)


def _render_configuration(environment: str, configuration: Json) -> Rendered:
    state = state_words(configuration)
    yield Text.assemble(
        "\n",
        (environment, "bold"),
        "  ",
        (state, STATE_STYLES[state]),
        f"  version {configuration['version']}, {configuration['action']} by"
        f" {configuration['actor']} at {time_words(configuration['at'])}",
    )
    if configuration["kill"] is not None:
        yield styled(f"  {kill_words(configuration['kill'])}", "red")
    for rule in configuration["rules"]:
        words = f"{condition_words(rule['condition'])} → {serve_words(rule['serve'])}"
        yield f"  rule {rule['id']}: {words}"
    yield f"  otherwise: {serve_words(configuration['default_serve'])}"
    yield f"  off: {configuration['off_variant']}"
    yield f"  guard: {configuration['guard']['mode']}, {configuration['guard']['on_breach']}"


@command(root)
@click.argument("flag")
@click.option(
    "--type",
    "type_",
    type=click.Choice(("boolean", "string", "integer", "float", "object")),
    default="boolean",
    show_default=True,
)
@click.option("--variant", "variants", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--off", "off_variant", metavar="VARIANT", help="Served while it is off.")
@click.option("--description")
@click.option("--owner")
@click.option("--tag", "tags", multiple=True, help="Repeatable.")
@click.option("--permanent", is_flag=True, help="It is not to be removed one day.")
@click.option("--expires", "expires_at", metavar="TIME", help="RFC 3339, with an offset.")
def create(
    session: Session, flag: str, type_: str, variants: tuple[str, ...], **given: Any
) -> Exit:
    """Create a flag: off everywhere until someone releases it."""
    body: Json = {"key": flag, "type": type_, "variants": _variants(type_, variants)}
    if given.pop("permanent"):
        body["lifetime"] = "permanent"
    body |= {name: value for name, value in given.items() if value}
    body["tags"] = list(given["tags"])
    created = session.api.post(at("flags"), body)
    session.out.show(created, lambda flag: [f"created {flag['key']}: off everywhere"])
    return Exit.OK


def _variants(type_: str, given: tuple[str, ...]) -> Json:
    if not given:
        if type_ != "boolean":
            raise CommandError(f"a flag of type {type_} needs --variant NAME=VALUE", Exit.USAGE)
        return {"on": True, "off": False}
    variants: Json = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            if not equals or not name:
                raise ValueError
            variants[name] = value if type_ == "string" else json.loads(value)
        except ValueError:
            message = f"--variant {text!r}: expected NAME=VALUE, the value in JSON"
            raise CommandError(message, Exit.USAGE) from None
    return variants
