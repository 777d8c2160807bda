"""`flagd-server people`: adds the first account, and helps who is locked out."""

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.cli.options import add_database, settings_of, text
from flagd_server.domain.roles import EVERYWHERE, Role
from flagd_server.errors import SettingsError

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers
    from flagd_server.services.people import NewPassword, People

_HELP = "add, list and change people who log in"
_ADD_HELP = "add a person and print a one-time password"
_LIST_HELP = "list people with their roles"
_RESET_HELP = "print a new one-time password; all sessions of the person end"
_ROLES_HELP = "give a person these roles in place of the present ones"
_DISABLE_HELP = "close an account; all sessions of the person end"
_ENABLE_HELP = "open a closed account again"
_ACTOR = "command line"


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("people", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, act: object, description: str, *, has_name: bool = True
    ) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=description, description=description)
        action.set_defaults(act=act)
        if has_name:
            action.add_argument("name", metavar="NAME", type=text, help="by which they log in")
        add_database(action)
        return action

    _add_roles(add("add", _add, _ADD_HELP))
    add("list", _list, _LIST_HELP, has_name=False)
    add("password", _reset, _RESET_HELP)
    _add_roles(add("roles", _change_roles, _ROLES_HELP))
    add("disable", _disable, _DISABLE_HELP)
    add("enable", _enable, _ENABLE_HELP)


def run(options: argparse.Namespace) -> int:
    from flagd_server.clock import SystemClock
    from flagd_server.services.login_throttle import LoginThrottle
    from flagd_server.services.password_hashes import PasswordHashes
    from flagd_server.services.people import People
    from flagd_server.services.publishing import Publisher
    from flagd_server.storage import open_storage

    settings = settings_of(options)
    if "://" not in settings.database and not Path(settings.database).exists():
        raise SettingsError([f"FLAGD_DATABASE: there is no {settings.database}"])
    act: Callable[[argparse.Namespace, People], None] = options.act
    with closing(open_storage(settings.database)) as storage:
        publisher = Publisher(SystemClock())
        act(options, People(storage, publisher, PasswordHashes(), LoginThrottle()))
    return 0


def _add(options: argparse.Namespace, people: "People") -> None:
    _print_password(people.add(options.name, dict(options.roles or ()), actor=_ACTOR))


def _reset(options: argparse.Namespace, people: "People") -> None:
    _print_password(people.reset_password(options.name, actor=_ACTOR))


def _print_password(made: "NewPassword") -> None:
    # The password alone on stdout, so that it can be piped to where it is needed.
    print(f"{made.person.name} logs in once with this, within three days:", file=sys.stderr)
    print(made.password)


def _list(options: argparse.Namespace, people: "People") -> None:
    from flagd_server.services.people import describe

    for person in people.list():
        roles = ", ".join(
            role.value if place is EVERYWHERE else f"{role.value}@{place}"
            for place, role in sorted(person.roles.items(), key=lambda item: item[0] or "")
        )
        print(f"{person.name:<24}  {describe(person):<34}  {roles or 'no role'}")


def _change_roles(options: argparse.Namespace, people: "People") -> None:
    people.change(options.name, roles=dict(options.roles or ()), actor=_ACTOR)


def _disable(options: argparse.Namespace, people: "People") -> None:
    people.change(options.name, disabled=True, actor=_ACTOR)


def _enable(options: argparse.Namespace, people: "People") -> None:
    people.change(options.name, disabled=False, actor=_ACTOR)


def _add_roles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--role",
        dest="roles",
        action="append",
        type=_role,
        metavar="ROLE[@ENVIRONMENT]",
        help=f"one of {', '.join(Role)}; for all environments unless one is named; may be repeated",
    )


def _role(argument: str) -> tuple[str | None, Role]:
    name, at, environment = argument.partition("@")
    try:
        role = Role(name)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(Role)}, and an environment behind @ if it is for one"
        ) from None
    if at and not environment:
        raise argparse.ArgumentTypeError("expected an environment behind @")
    return environment or EVERYWHERE, role
