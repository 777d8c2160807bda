"""`flagd-server audit`: shows the head of the audit's chain, and verifies the chain."""

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from flagd_server.cli.options import InputError, add_database, complain, settings_of, text
from flagd_server.domain.audit_chain import Head, verify

if TYPE_CHECKING:
    from flagd_server.cli.options import Subparsers

_HELP = "verify that nobody has changed the audit log"
_HEAD_HELP = "print id and hash of the newest entry, as a line of JSON"
_VERIFY_HELP = "look for the first entry that was changed, inserted, removed or put elsewhere"
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_EXPECTED = 'expected lines of {"id": 7, "hash": "…"}, as `flagd-server audit head` prints them'


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("audit", help=_HELP, description=_HELP)
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    head = actions.add_parser("head", help=_HEAD_HELP, description=_HEAD_HELP)
    head.set_defaults(act=_head)
    add_database(head)
    check = actions.add_parser("verify", help=_VERIFY_HELP, description=_VERIFY_HELP)
    check.set_defaults(act=_verify)
    check.add_argument(
        "--head",
        metavar="FILE",
        type=text,
        action="append",
        default=[],
        help="heads that were exported before, one a line: a log cut off or written anew differs",
    )
    add_database(check)


def run(options: argparse.Namespace) -> int:
    return int(options.act(options))


def _head(options: argparse.Namespace) -> int:
    from flagd_server.storage import open_reader

    with open_reader(settings_of(options).database) as reader:
        head = reader.audit_head()
    print(json.dumps({"id": head.id, "hash": head.hash.hex()}))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from flagd_server.storage import open_reader

    heads = [head for path in options.head for head in _read_heads(Path(path))]
    with open_reader(settings_of(options).database) as reader:
        verified = verify(reader.audit_chain, heads)
    if verified.found is not None:
        complain(f"audit entry {verified.found.id} {verified.found.why}")
        return 1
    held_to = f", held to {len(heads)} exported heads" if heads else ""
    print(f"{verified.entries} entries are as they were written{held_to}")
    return 0


def _read_heads(path: Path) -> list[Head]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--head: can't read {path}: {error}") from error
    heads = [_parsed(line) for line in lines if line.strip()]
    if not heads or None in heads:
        where = "" if not heads else f", line {heads.index(None) + 1}"
        raise InputError(f"--head: {path}{where}: {_EXPECTED}")
    return [head for head in heads if head is not None]


def _parsed(line: str) -> Head | None:
    try:
        match json.loads(line):
            case {"id": int(entry_id), "hash": str(hash_)} if _HASH.fullmatch(hash_):
                return Head(entry_id, bytes.fromhex(hash_))
    except ValueError:
        pass
    return None
