"""What each contender is asked: the same two flags for the same users, and what is right.

`checkout` is on for a quarter of the users. `pricing` is on for users in three countries, for users
of the plan "pro" from version 2.3.0, and for a tenth of the others. Each contender has them in its
own words; whom of a share a contender picks is its own affair, how many and that they stay is not.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from typing import Any, TypeAlias

CHECKOUT, PRICING = "checkout", "pricing"
CHECKOUT_SHARE, PRICING_SHARE = 0.25, 0.10
COUNTRIES = ("NL", "BE", "LU")
PLAN = "pro"
VERSION = (2, 3, 0)
VERSION_TEXT = ".".join(map(str, VERSION))

WORKLOADS: Mapping[str, tuple[str, ...]] = {
    "one boolean flag": (CHECKOUT,),
    "one flag with rules": (PRICING,),
    "both flags": (CHECKOUT, PRICING),
}

USERS = 10_000
# A right share of so many users is further off than this once in 15,000 runs.
_DEVIATIONS = 4.0

User: TypeAlias = Mapping[str, str]
"""id, country, plan, version."""


def users(count: int = USERS) -> list[User]:
    """Return the users, the same ones each time."""
    draw = random.Random(20261127)
    return [
        {
            "id": f"user-{draw.randrange(10**12)}",
            "country": draw.choice((*COUNTRIES, "US", "GB", "IT", "ES", "PT", "FR", "DE")),
            "plan": draw.choice(("free", "free", PLAN)),
            "version": draw.choice(("1.9.12", "2.2.40", "2.3.0", "2.10.1")),
        }
        for _ in range(count)
    ]


def meets_a_rule(user: User) -> bool:
    """Return whether `pricing` is on for a user whatever the share."""
    version = tuple(map(int, user["version"].split(".")))
    return user["country"] in COUNTRIES or (user["plan"] == PLAN and version >= VERSION)


def faults(is_on: Callable[[str, Any], object], asked: Sequence[tuple[User, Any]]) -> list[str]:
    """Return what a contender gets wrong; empty where it may be timed.

    Args:
        asked: each user with the form in which the contender wants it.
    """
    found = []
    first = {key: [is_on(key, form) for _, form in asked] for key in (CHECKOUT, PRICING)}
    for key, answers in first.items():
        if not all(type(answer) is bool for answer in answers):
            found.append(f"{key}: not every answer is a boolean")
        if answers != [is_on(key, form) for _, form in asked]:
            found.append(f"{key}: a user does not keep the answer")
    targeted: list[object] = []
    others: list[object] = []
    for (user, _), answer in zip(asked, first[PRICING], strict=True):
        (targeted if meets_a_rule(user) else others).append(answer)
    if not all(targeted):
        found.append(f"{PRICING}: off for {targeted.count(False)} users who meet a rule")
    found += _share_faults(CHECKOUT, first[CHECKOUT], CHECKOUT_SHARE)
    found += _share_faults(PRICING, others, PRICING_SHARE)
    return found


def _share_faults(key: str, answers: Iterable[object], share: float) -> list[str]:
    answers = list(answers)
    seen = sum(answer is True for answer in answers) / len(answers)
    if abs(seen - share) <= _DEVIATIONS * sqrt(share * (1 - share) / len(answers)):
        return []
    return [f"{key}: on for {seen:.1%} of {len(answers)} users, where {share:.0%} is right"]
