"""Flags that are declared once, with their type and default, and then asked for by name in code.

    CHECKOUT = flags.boolean("new-checkout", default=False)

What contradicts itself raises where it is declared; what contradicts the server is logged.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from flagd_sdk.core.evaluator import EMPTY_FLAG_SET
from flagd_sdk.core.types import ContextMapping, ResolutionDetails, shown
from flagd_sdk.core.values import READERS, own_copy
from flagd_sdk.errors import ConfigurationError
from flagd_sdk.flag_state import FlagsChanged, FlagState
from flagd_sdk.notices import Notices

P = ParamSpec("P")
R = TypeVar("R")
Default = TypeVar("Default")
Value = TypeVar("Value")
ObjectValue = TypeVar("ObjectValue", bound="dict[str, Any] | list[Any]")


class Declared:
    """The flags that an application has declared: key → type and default. Thread-safe."""

    def __init__(self, state: FlagState, notices: Notices) -> None:
        """Begin with none."""
        self._state = state
        self._notices = notices
        self._flags: dict[str, tuple[str, object]] = {}
        self._has_checked_all = False

    def add(self, key: str, kind: str, default: object) -> Any:
        """Take note of one; return the default as a value of its kind.

        Raises:
            ConfigurationError: it contradicts itself, or an earlier declaration.
        """
        if not isinstance(key, str) or not key:
            raise ConfigurationError(f"flag: {shown(key)}; expected a key, not empty")
        try:
            default = READERS[kind](default)
        except ValueError as error:
            raise ConfigurationError(f"flag {key}: default: {error}") from None
        if not self._flags:
            self._state.subscribe(self._check_changed)
        known = self._flags.setdefault(key, (kind, default))
        if known != (kind, default):
            raise ConfigurationError(
                f"flag {key}: declared as {kind} with the default {shown(default)}, and elsewhere"
                f" as {known[0]} with {shown(known[1])}; expected one declaration"
            )
        if self._state.flag_set is not EMPTY_FLAG_SET:
            self._check(key)
        return default

    def _check_changed(self, event: FlagsChanged) -> None:
        """Check those that changed; at first all, as one that is missing does not change."""
        keys = tuple(self._flags)
        for key in keys if not self._has_checked_all else event.keys.intersection(keys):
            self._check(key)
        self._has_checked_all = True

    def _check(self, key: str) -> None:
        kind = self._flags[key][0]
        flag = self._state.flag_set.flags.get(key)
        if flag is None:
            self._notices.mention(
                f"declared:{key}",
                "Flag %s is declared, but does not exist: its default is served",
                key,
            )
        elif flag.fault is None and flag.type not in _FITTING.get(kind, (kind,)):
            self._notices.tell(
                f"declared:{key}",
                "Flag %s is declared as %s, but is of type %s: its default is served",
                key,
                kind,
                flag.type,
            )


_FITTING: Final = {"float": ("float", "integer")}


class Client(Protocol):
    """What a handle asks of the client that it was declared on."""

    _declared: Declared

    def is_enabled(
        self, key: str, default: bool = ..., context: ContextMapping | None = ...
    ) -> bool: ...

    def value(
        self, key: str, default: Default, context: ContextMapping | None = ...
    ) -> Default: ...

    def details(
        self, key: str, default: Default, context: ContextMapping | None = ...
    ) -> ResolutionDetails[Default]: ...

    def _when(
        self, key: str, is_on: Callable[[], bool], otherwise: Callable[P, R], fallback: bool
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


class FlagHandle(Generic[Value]):
    """A flag as declared. Its methods are the client's, less the key and the default."""

    __slots__ = ("client", "default", "key")

    kind: ClassVar[str]

    def __init__(self, client: Client, key: str, default: Value) -> None:
        """Declare a flag; a client's `boolean`, `string` and so on do it.

        Raises:
            ConfigurationError: it contradicts itself, or an earlier declaration.
        """
        self.default: Value = client._declared.add(key, self.kind, default)
        self.client = client
        self.key = key

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key} default={self.default!r}>"

    def value(self, context: ContextMapping | None = None) -> Value:
        """Return the flag's value; see `FlagClient.value`."""
        return self.client.value(self.key, self.default, context)

    def details(self, context: ContextMapping | None = None) -> ResolutionDetails[Value]:
        """Return the flag's value with its variant and reason; see `FlagClient.details`."""
        return self.client.details(self.key, self.default, context)


class BooleanFlag(FlagHandle[bool]):
    """A flag that is on or off."""

    __slots__ = ()
    kind = "boolean"

    def is_enabled(self, context: ContextMapping | None = None) -> bool:
        """Return whether the flag is on; see `FlagClient.is_enabled`."""
        return self.client.is_enabled(self.key, self.default, context)

    def when(
        self, otherwise: Callable[P, R], *, fallback: bool = True
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make a function the new path, taken where the flag is on; see `FlagClient.when`."""
        return self.client._when(self.key, self.is_enabled, otherwise, fallback)


class StringFlag(FlagHandle[str]):
    """A flag whose variants are texts."""

    __slots__ = ()
    kind = "string"


class IntegerFlag(FlagHandle[int]):
    """A flag whose variants are integers."""

    __slots__ = ()
    kind = "integer"


class FloatFlag(FlagHandle[float]):
    """A flag whose variants are numbers; an integer flag suits it too."""

    __slots__ = ()
    kind = "float"


class ObjectFlag(FlagHandle[ObjectValue]):
    """A flag whose variants are objects or lists. What it returns is the caller's to change."""

    __slots__ = ()
    kind = "object"

    def value(self, context: ContextMapping | None = None) -> ObjectValue:
        """Return the flag's value; see `FlagClient.value`."""
        return self.details(context).value

    def details(self, context: ContextMapping | None = None) -> ResolutionDetails[ObjectValue]:
        """Return the flag's value with its variant and reason; see `FlagClient.details`."""
        return self.client.details(self.key, cast("ObjectValue", own_copy(self.default)), context)


_Float: TypeAlias = float  # by a name that `Declaring.float` leaves alone


class Declaring:
    """The part of a client that declares flags, in OpenFeature's words for their types.

    Apart from the rest of it, where `float` and `object` must go on meaning themselves.
    """

    def boolean(self: Client, key: str, *, default: bool) -> BooleanFlag:
        """Declare a boolean flag.

        Raises:
            ConfigurationError: here as by its neighbours: the default is of another type, or the
                flag was declared before with another type or default.
        """
        return BooleanFlag(self, key, default)

    def string(self: Client, key: str, *, default: str) -> StringFlag:
        """Declare a string flag."""
        return StringFlag(self, key, default)

    def integer(self: Client, key: str, *, default: int) -> IntegerFlag:
        """Declare an integer flag."""
        return IntegerFlag(self, key, default)

    def float(self: Client, key: str, *, default: _Float) -> FloatFlag:
        """Declare a float flag; an integer does as its default."""
        return FloatFlag(self, key, default)

    def object(self: Client, key: str, *, default: ObjectValue) -> ObjectFlag[ObjectValue]:
        """Declare a flag of objects or lists."""
        return ObjectFlag(self, key, default)
