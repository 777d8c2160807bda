"""Conditions and segments as JSON → functions of a context and the other flags."""

from collections.abc import Callable, Mapping
from typing import Final

from flagd_sdk.core.model import Condition, Peers, Segment
from flagd_sdk.core.operators import compile_operator
from flagd_sdk.core.types import ContextMapping, shown
from flagd_sdk.errors import ParseError

# Levels of nested conditions, segments included. Far above what the server accepts in one condition
# and far from the interpreter's limit, since evaluation recurses.
MAX_HEIGHT: Final = 64
# Conditions with their segments written out: segments that use segments twice grow exponentially,
# and the time of an evaluation must not.
MAX_SIZE: Final = 50_000


class Gathered:
    """What the conditions of one flag or segment turn out to need.

    Attributes:
        segment: look-up of those that may be referred to, compiled.
        prerequisites: keys of the flags asked for, through segments too.
        height: levels of nested conditions, segments included.
        size: conditions, those of segments counted wherever they are used.
    """

    __slots__ = ("height", "prerequisites", "segment", "size")

    def __init__(self, segment: Callable[[str], Segment | None]) -> None:
        self.segment = segment
        self.prerequisites: set[str] = set()
        self.height = 0
        self.size = 0

    def add(self, level: int, height: int, size: int) -> None:
        """Count a condition that stands at a level, the outermost being 1.

        Raises:
            ParseError: it is one too many, or too deep.
        """
        self.size += size
        if level + height - 1 > self.height:
            self.height = level + height - 1
            if self.height > MAX_HEIGHT:
                raise ParseError(f": more than {MAX_HEIGHT} levels of conditions")
        if self.size > MAX_SIZE:
            raise ParseError(f": more than {MAX_SIZE} conditions, segments included")


def located(place: str, error: ParseError) -> ParseError:
    """Return the error with the place it was found in before its own path.

    A message starts with a path and ": "; one about the whole of a thing starts with ": ".
    """
    text = str(error)
    return ParseError(place + text if text[:1] in ":[" else f"{place}.{text}")


def compile_condition(document: object, gathered: Gathered, level: int) -> Condition:
    """Make the function that tests a condition.

    Raises:
        ParseError: it can't be understood; the message starts with the path within it.
    """
    if type(document) is not dict:
        raise ParseError(f": {shown(document)}; expected a condition")
    gathered.add(level, 1, 1)
    if "attribute" in document:
        attribute = document["attribute"]
        if type(attribute) is not str or not attribute:
            raise ParseError(f"attribute: {shown(attribute)}; expected an attribute's name")
        return compile_operator(attribute, document.get("op"), document.get("values"))
    if "all" in document:
        return _all(_children("all", document["all"], gathered, level))
    if "any" in document:
        return _any(_children("any", document["any"], gathered, level))
    if "not" in document:
        try:
            return _not(compile_condition(document["not"], gathered, level + 1))
        except ParseError as error:
            raise located("not", error) from None
    if "segment" in document:
        return _segment(document["segment"], gathered, level)
    if "flag" in document:
        return _prerequisite(document["flag"], document.get("variants"), gathered)
    raise ParseError(
        ": unknown kind; expected 'attribute', 'all', 'any', 'not', 'segment' or 'flag'"
    )


def compile_segments(documents: Mapping[str, object]) -> dict[str, Segment]:
    """Compile segments, which may use each other; what can't be understood has a `fault`."""
    compiled: dict[str, Segment] = {}
    lookup = _Segments(documents, compiled)
    for key in documents:
        if key not in compiled:
            try:
                lookup.get(key)
            except ParseError as error:
                compiled[key] = Segment(None, frozenset(), 0, 0, str(error).removeprefix(": "))
    return compiled


class _Segments:
    """Segments that are compiled when a segment asks for them.

    A fault is kept for the segment the outer loop began with, not for those on the way to it: too
    high a pile is a fault of its top alone.
    """

    def __init__(self, documents: Mapping[str, object], compiled: dict[str, Segment]) -> None:
        self._documents = documents
        self._compiled = compiled
        self._path: list[str] = []

    def get(self, key: str) -> Segment | None:
        segment = self._compiled.get(key)
        if segment is not None or key not in self._documents:
            return segment
        if key in self._path:
            way = [*self._path[self._path.index(key) :], key]
            raise ParseError(f": segments in a cycle ({' → '.join(map(shown, way))})")
        document = self._documents[key]
        if len(self._path) >= MAX_HEIGHT:
            raise ParseError(f": more than {MAX_HEIGHT} levels of conditions")
        self._path.append(key)
        try:
            gathered = Gathered(self.get)
            holds = compile_condition(document, gathered, 1)
        finally:
            self._path.pop()
        segment = Segment(holds, frozenset(gathered.prerequisites), gathered.height, gathered.size)
        self._compiled[key] = segment
        return segment


def _children(kind: str, documents: object, gathered: Gathered, level: int) -> list[Condition]:
    if type(documents) is not list:
        raise ParseError(f"{kind}: {shown(documents)}; expected a list")
    compiled = []
    for index, document in enumerate(documents):
        try:
            compiled.append(compile_condition(document, gathered, level + 1))
        except ParseError as error:
            raise located(f"{kind}[{index}]", error) from None
    return compiled


def _all(children: list[Condition]) -> Condition:
    if len(children) == 2:
        first, second = children
        return lambda context, peers: first(context, peers) and second(context, peers)

    def holds(context: ContextMapping, peers: Peers) -> bool:
        for child in children:  # noqa: SIM110 - a generator would cost more than the conditions
            if not child(context, peers):
                return False
        return True

    return holds


def _any(children: list[Condition]) -> Condition:
    def holds(context: ContextMapping, peers: Peers) -> bool:
        for child in children:  # noqa: SIM110 - a generator would cost more than the conditions
            if child(context, peers):
                return True
        return False

    return holds


def _not(child: Condition) -> Condition:
    return lambda context, peers: not child(context, peers)


def _segment(key: object, gathered: Gathered, level: int) -> Condition:
    segment = gathered.segment(key) if type(key) is str else None
    if segment is None:
        raise ParseError(f"segment: there is no segment {shown(key)}")
    if segment.holds is None:
        raise ParseError(f"segment: {shown(key)} can't be used ({segment.fault})")
    gathered.add(level + 1, segment.height, segment.size)
    gathered.prerequisites |= segment.prerequisites
    return segment.holds


def _prerequisite(key: object, variants: object, gathered: Gathered) -> Condition:
    if type(key) is not str:
        raise ParseError(f"flag: {shown(key)}; expected a flag's key")
    if type(variants) is not list or not all(type(variant) is str for variant in variants):
        raise ParseError(f"variants: {shown(variants)}; expected a list of names")
    wanted = frozenset(variants)
    gathered.prerequisites.add(key)

    def holds(context: ContextMapping, peers: Peers) -> bool:
        # The flag that this condition stands in sees to it that its peers are `Remembered`, each
        # already bound to this very context.
        peer = peers.get(key)
        return peer is not None and peer(context, peers, None).variant in wanted

    return holds
