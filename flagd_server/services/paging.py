"""Lists that are too long to return at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

DEFAULT_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Newest first. `next` is what to give as `before` for the page after; None at the end."""

    items: tuple[T, ...]
    next: int | None


def page(fetch: Callable[[int], Sequence[T]], limit: int, cursor: Callable[[T], int]) -> Page[T]:
    """Return the first `limit` of what `fetch` finds, with the cursor of the last one kept.

    Args:
        fetch: returns at most as many items as it is told.
    """
    found = fetch(limit + 1)
    items = tuple(found[:limit])
    return Page(items, cursor(items[-1]) if len(found) > limit else None)
