"""What a test says of a flag → the flag as the server would deliver it."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final, TypeAlias

from flagd_sdk.core.types import shown
from flagd_sdk.errors import ConfigurationError
from flagd_sdk.handles import FlagHandle


class Definition(dict[str, Any]):
    """A flag with rules or splits, for tests that are about them.

    Its members are those of a flag on the wire. What is left out is filled in: `variants` on and
    off; `type` after their values; `off_variant` "off", or the first; `default_serve` the off
    variant; `enabled` true; a rule's `id` its place; a split's `allocation` after its `weights`,
    in their order.

        Definition(default_serve={"split": {"weights": {"on": 25_000, "off": 75_000}}})
    """


# Flag (its key or its handle) → its value for everybody; or a `Definition`; or None for a flag that
# does not exist. Not `str | FlagHandle`, as the keys of a mapping type are invariant.
Values: TypeAlias = Mapping[Any, Any]

_ON_OFF: Final = {"on": True, "off": False}
_TYPES: Final = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "float"),
    (str, "string"),
    (dict | list, "object"),
)


def key_of(flag: str | FlagHandle[Any]) -> str:
    """Return the key of a flag that is named by its key or handle."""
    return flag.key if isinstance(flag, FlagHandle) else flag


def document_of(key: str, value: object, version: int) -> dict[str, Any]:
    """Return the flag's document.

    Raises:
        ConfigurationError: no flag can have such a value.
    """
    if not isinstance(value, Definition):
        variants = _ON_OFF if isinstance(value, bool) else {"value": value}
        served = "off" if value is False else next(iter(variants))
        value = Definition(variants=variants, default_serve={"variant": served})
    variants = value.get("variants", _ON_OFF)
    names = list(variants) if isinstance(variants, Mapping) else []
    off_variant = value.get("off_variant", "off" if "off" in names else next(iter(names), None))
    document = {
        "key": key,
        "type": _type_of(key, next(iter(variants.values()))) if names else "boolean",
        "version": version,
        "enabled": True,
        "variants": variants,
        "off_variant": off_variant,
        "rules": [],
        "default_serve": {"variant": off_variant},
        "kill": None,
        **value,
    }
    document["default_serve"] = _allocated(document["default_serve"])
    document["rules"] = [
        {"id": str(index), **rule, "serve": _allocated(rule.get("serve"))}
        if isinstance(rule, Mapping)
        else rule
        for index, rule in enumerate(document["rules"] or ())
    ]
    return document


def _type_of(key: str, value: object) -> str:
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    raise ConfigurationError(
        f"flag {key}: {shown(value)}; expected a boolean, a number, a string, an object, a list or"
        " a Definition"
    )


def _allocated(serve: Any) -> Any:
    split = serve.get("split") if isinstance(serve, Mapping) else None
    if not isinstance(split, Mapping) or "allocation" in split or "weights" not in split:
        return serve
    weights = {name: weight for name, weight in split["weights"].items() if weight}
    bounds = accumulate(weights.values())
    return {
        "split": {**split, "allocation": [[b, n] for b, n in zip(bounds, weights, strict=True)]}
    }
