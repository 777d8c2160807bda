"""What no answer may do, whatever was asked."""

import re
from collections.abc import Iterator

from tests.contract.openapi_contract import ContractError, Exchange, Operation, contract
from tests.fuzz.calls import Answer, Call
from tests.fuzz.world import ENVIRONMENTS, Caller, World, mark_of

# Of an interpreter, a driver or a server that speaks of itself.
_INSIDES = re.compile(
    rb"Traceback|File \"/|\.py\"|line \d+, in |sqlite3?\.|OperationalError|IntegrityError"
    rb"|SELECT .* FROM|INSERT INTO|psycopg|[Ww]erkzeug|pydantic|gunicorn"
)


def breaches(
    world: World, operation: Operation, caller: Caller, call: Call, answer: Answer
) -> Iterator[str]:
    """Yield what is wrong with an answer."""
    if answer.status >= 500:
        yield f"{answer.status}: {(answer.body or b'')[:300]!r}"
        return
    try:
        contract().check(
            Exchange(
                method=call.method.lower(),
                path=call.path,
                query=call.query,
                request_headers=call.headers,
                request_body=call.body,
                status=answer.status,
                headers=answer.headers,
                body=answer.body,
            )
        )
    except ContractError as error:
        yield f"not as documented: {error}"
    if answer.status < 400 and not operation.is_open and not caller.may(operation):
        yield f"{answer.status} for {caller.kind}, which may not"
    yield from _leaks(world, caller, call, answer)


def _leaks(world: World, caller: Caller, call: Call, answer: Answer) -> Iterator[str]:
    head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items()).encode()
    shown = head + b"\n" + (answer.body or b"")
    # What was sent may come back in the message that refuses it.
    sent = (call.target + "\n".join(call.headers.values())).encode() + call.body
    for found in _INSIDES.findall(shown):
        if found not in sent:
            yield f"speaks of its insides: {found!r}"
    for secret in world.secrets:
        if secret.encode() in shown:  # the answer that makes one is looked at before it is known
            yield "holds a secret"
    for environment in ENVIRONMENTS:
        may_see = caller.is_known and caller.environment in (None, environment)
        if not may_see and mark_of(environment).encode() in shown:
            yield f"shows {caller.kind} what is only in {environment}"
