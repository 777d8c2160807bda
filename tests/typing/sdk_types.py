"""What a type checker makes of the SDK's public names; checked by mypy, never run."""

from collections.abc import Coroutine
from typing import Any, assert_type

from flagd_sdk import FlagClient, ResolutionDetails, Scope

flags = FlagClient("http://localhost:8013", "t")

assert_type(flags.is_enabled("f"), bool)
assert_type(flags.value("f", "text"), str)
assert_type(flags.value("f", 1.5), float)
assert_type(flags.details("f", 7), ResolutionDetails[int])
assert_type(flags.details("f", 7).value, int)
assert_type(flags.all_flags(), dict[str, ResolutionDetails[Any]])

with flags.scope({"targetingKey": "u1"}) as scope:
    assert_type(scope, Scope)
    scope.fail(ValueError())
    flags.fail(503, flag="f")


def old(cart: list[str], *, fast: bool = False) -> int:
    return len(cart)


@flags.when("f", otherwise=old)
def new(cart: list[str], *, fast: bool = False) -> int:
    return len(cart)


assert_type(new(["a"], fast=True), int)
new("a", fast=1)  # type: ignore[arg-type]
new()  # type: ignore[call-arg]


@flags.when("f", otherwise=old)  # type: ignore[arg-type]
def mismatched(cart: list[str], *, fast: bool = False) -> str:
    return ""


async def old_async(number: int) -> str:
    return str(number)


@flags.when("f", otherwise=old_async)
async def new_async(number: int) -> str:
    return str(number)


pending = assert_type(new_async(1), Coroutine[Any, Any, str])
