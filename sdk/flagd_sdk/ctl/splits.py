"""What `--percent` and `--variant` ask for → what is served. Pure."""

from collections.abc import Sequence
from math import isfinite, nan
from typing import Any

from flagd_sdk.ctl.wording import WEIGHTS

Json = dict[str, Any]


def split_of(
    texts: Sequence[str], variants: Sequence[str], off_variant: str, present: Json
) -> Json:
    """Return the serve that gives each named variant its share, and the off variant the rest.

    Args:
        texts: each "5", for the one variant that is not the off variant, or "name=5"; percent.
        present: what is served now; the attribute that places users stays what it is.

    Raises:
        ValueError: they name no variant, or do not fit into 100 %.
    """
    weights: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        name = name or _only_other(variants, off_variant)
        if name not in variants:
            raise ValueError(f"{name!r} is none of the variants {', '.join(variants)}")
        if name in weights:
            raise ValueError(f"{name} has two shares")
        weights[name] = _weight(number)
    rest = WEIGHTS - sum(weights.values())
    if rest < 0:
        raise ValueError(f"the shares sum to {sum(weights.values()) * 100 / WEIGHTS:g} %")
    if rest and off_variant in weights:
        raise ValueError(f"the shares sum to {100 - rest * 100 / WEIGHTS:g} %; expected 100")
    if rest:
        weights[off_variant] = rest
    split = {"weights": weights}
    by = present.get("split", {}).get("bucket_by")
    return {"split": split | ({} if by is None else {"bucket_by": by})}


def _only_other(variants: Sequence[str], off_variant: str) -> str:
    others = [name for name in variants if name != off_variant]
    if len(others) != 1:
        raise ValueError(f"of which variant? expected NAME=PERCENT, of {', '.join(variants)}")
    return others[0]


def parse_percent(text: str) -> float:
    """Return the number of a text such as "5", "5%" or "0.1".

    Raises:
        ValueError: it is none.
    """
    try:
        share = float(text.strip().removesuffix("%"))
    except ValueError:
        share = nan
    if not isfinite(share):
        raise ValueError(f"{text!r}; expected percent, such as 5 or 0.1")
    return share


def _weight(text: str) -> int:
    """Return percent as a weight; thousandths of a percent count."""
    share = parse_percent(text)
    weight = round(share * WEIGHTS / 100)
    if not 0 <= share <= 100 or abs(weight - share * WEIGHTS / 100) > 1e-6:
        raise ValueError(f"{text!r}; expected percent from 0 to 100, in thousandths")
    return weight
