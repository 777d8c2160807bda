"""What a type checker makes of the SDK's public names; checked by mypy, never run."""

from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from typing import Any, TypeVar, assert_type

from flagd_sdk import (
    BooleanFlag,
    FlagClient,
    FloatFlag,
    IntegerFlag,
    ObjectFlag,
    ResolutionDetails,
    Scope,
    StringFlag,
)
from flagd_sdk.testing import Definition, Exposure, InMemoryClient, Overridden, override

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


@flags.when("f", otherwise=old_async)  # type: ignore[arg-type]
def no_coroutine(number: int) -> str:
    return str(number)


def old_rows(number: int) -> Iterator[str]:
    yield str(number)


@flags.when("f", otherwise=old_rows)
def new_rows(number: int) -> Iterator[str]:
    yield str(number)


@flags.when("f", otherwise=old_rows)
def new_talk(number: int) -> Generator[str, str, bytes]:
    heard = yield str(number)
    return heard.encode()


assert_type(new_rows(1), Iterator[str])
assert_type(new_talk(1), Iterator[str])  # what both promise
new_rows("1")  # type: ignore[arg-type]


async def old_stream(number: int) -> AsyncIterator[bytes]:
    yield bytes(number)


@flags.when("f", otherwise=old_stream)
async def new_stream(number: int) -> AsyncIterator[bytes]:
    yield bytes(number)


assert_type(new_stream(1), AsyncIterator[bytes])

Item = TypeVar("Item")


def old_first(items: list[Item]) -> Item:
    return items[0]


@flags.when("f", otherwise=old_first)
def new_first(items: list[Item]) -> Item:
    return items[-1]


assert_type(new_first(["a"]), str)


class Shop:
    def old(self, number: int, *, fast: bool = False) -> str:
        return str(number)

    @flags.when("f", otherwise=old)
    def new(self, number: int, *, fast: bool = False) -> str:
        return str(number)

    @flags.when("f", otherwise=old)  # type: ignore[arg-type]
    def without_fast(self, number: int) -> str:
        return str(number)

    @classmethod
    def old_class(cls, number: int) -> str:
        return str(number)

    @classmethod
    @flags.when("f", otherwise=old_class)
    def inside_class(cls, number: int) -> str:
        return str(number)

    @flags.when("f", otherwise=old_class)
    @classmethod
    def outside_class(cls, number: int) -> str:
        return str(number)

    @staticmethod
    def old_static(number: int) -> str:
        return str(number)

    @staticmethod
    @flags.when("f", otherwise=old_static)
    def inside_static(number: int) -> str:
        return str(number)

    @flags.when("f", otherwise=old_static)
    @staticmethod
    def outside_static(number: int) -> str:
        return str(number)

    @property
    @flags.when("f", otherwise=lambda self: 1)
    def count(self) -> int:
        return 2


assert_type(Shop().new(1, fast=True), str)
Shop().new()  # type: ignore[call-arg]
Shop.new(1)  # type: ignore[call-arg,arg-type]
assert_type(Shop().inside_class(1), str)
assert_type(Shop.inside_class(1), str)
assert_type(Shop.outside_class(1), str)
assert_type(Shop.inside_static(1), str)
assert_type(Shop().outside_static(1), str)
assert_type(Shop().count, int)

CHECKOUT = assert_type(flags.boolean("checkout", default=False), BooleanFlag)
COLOUR = assert_type(flags.string("colour", default="red"), StringFlag)
COUNT = assert_type(flags.integer("count", default=1), IntegerFlag)
RATIO = assert_type(flags.float("ratio", default=1), FloatFlag)
LIMITS = assert_type(flags.object("limits", default={"cart": 9}), ObjectFlag[dict[str, int]])
assert_type(CHECKOUT.is_enabled(), bool)
assert_type(CHECKOUT.value({"targetingKey": "u1"}), bool)
assert_type(COLOUR.value(), str)
assert_type(COUNT.details(), ResolutionDetails[int])
assert_type(RATIO.value(), float)
assert_type(LIMITS.value(), dict[str, int])
flags.boolean("checkout", default="no")  # type: ignore[arg-type]
flags.integer("count", default=1.5)  # type: ignore[arg-type]
flags.object("limits", default=1)  # type: ignore[type-var]
COLOUR.is_enabled()  # type: ignore[attr-defined]


@CHECKOUT.when(otherwise=old)
def newer(cart: list[str], *, fast: bool = False) -> int:
    return len(cart)


assert_type(newer(["a"]), int)
newer(1)  # type: ignore[arg-type]


values = {"checkout": True}
memory = InMemoryClient(values, strict=True)
memory.set_flags({CHECKOUT: True, "colour": "red", "split": Definition(enabled=False)})
assert_type(memory.exposures, list[Exposure])
with override(flags, values) as overridden, override(CHECKOUT, True), override(COLOUR, "red"):
    assert_type(overridden, Overridden)
override({"checkout": True})  # type: ignore[call-overload]


@override(flags, {CHECKOUT: True})
async def test_checkout(number: int) -> str:
    return str(number)


tested = assert_type(test_checkout(1), Coroutine[Any, Any, str])
