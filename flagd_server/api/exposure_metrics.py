"""Exposures, errors and latency of each flag and variant, in Prometheus' text format.

Written by hand: a server with a thousand flags has tens of thousands of these lines, and the
library's way through objects would hold up what the server is for by half a second a scrape.
"""

from collections.abc import Iterable, Iterator

from flagd_server.services.exposure_tally import BOUNDS_US, Counted, Key

_EXPOSURES = "flagd_exposures_total"
_ERRORS = "flagd_exposure_errors_total"
_LATENCY = "flagd_exposure_duration_seconds"
_HEADS = {
    _EXPOSURES: ("counter", "Units of work in which a variant was served, by what has reported."),
    _ERRORS: ("counter", "Of those, the ones that failed."),
    _LATENCY: ("histogram", "How long they took; the sum is within a sixteenth."),
}
_BOUNDS = tuple(f"{bound / 1e6:g}" if bound < 1e6 else f"{bound / 1e6:.6f}" for bound in BOUNDS_US)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(counted: Iterable[tuple[Key, Counted]]) -> bytes:
    """Return the lines of all."""
    rows = [(_labels(key), each) for key, each in counted]
    lines = [
        *_head(_EXPOSURES),
        *(f"{_EXPOSURES}{{{labels}}} {each.exposures}" for labels, each in rows),
        *_head(_ERRORS),
        *(f"{_ERRORS}{{{labels}}} {each.errors}" for labels, each in rows),
        *_head(_LATENCY),
    ]
    for labels, each in rows:
        if each.latency is not None:
            lines += _histogram(labels, each.latency, each.latency_us)
    return ("\n".join(lines) + "\n").encode()


def _head(name: str) -> tuple[str, str]:
    kind, text = _HEADS[name]
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _histogram(labels: str, latency: list[int], latency_us: float) -> Iterator[str]:
    below = 0
    for bound, count in zip(_BOUNDS, latency, strict=False):
        below += count
        yield f'{_LATENCY}_bucket{{{labels},le="{bound}"}} {below}'
    below += latency[-1]
    yield f'{_LATENCY}_bucket{{{labels},le="+Inf"}} {below}'
    yield f"{_LATENCY}_sum{{{labels}}} {latency_us / 1e6:.6f}"
    yield f"{_LATENCY}_count{{{labels}}} {below}"


def _labels(key: Key) -> str:
    pairs = zip(Key._fields, key, strict=True)
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)
