"""Fixed log-linear buckets for durations: exact below 16 µs, then eight equal buckets an octave.

The boundaries are a contract between every SDK and the server: histograms of any processes and
minutes add up bucket by bucket, and a quantile read from them is off by at most 1/8.
(The layout is HdrHistogram's, Gil Tene, with three significant bits.)
"""

SUB_BUCKETS = 8  # an octave
_SUB_BITS = 3

# Durations of 2^36 µs (19 hours) and more share the last bucket.
_MAX_DURATION_US = (1 << 36) - 1
LATENCY_BUCKETS = (36 - _SUB_BITS) * SUB_BUCKETS + SUB_BUCKETS


def latency_bucket(duration_us: int) -> int:
    """Return the index, from 0 to `LATENCY_BUCKETS` - 1, of the bucket that holds a duration.

    A negative duration (a clock that was set back) counts as zero.
    """
    # Plain comparisons: it runs once in every unit of work.
    if duration_us < 2 * SUB_BUCKETS:
        return duration_us if duration_us >= 0 else 0
    if duration_us > _MAX_DURATION_US:
        return LATENCY_BUCKETS - 1
    shift = duration_us.bit_length() - _SUB_BITS - 1
    return (shift << _SUB_BITS) + (duration_us >> shift)


def bucket_bounds_us(index: int) -> tuple[int, int]:
    """Return the bounds of a bucket in microseconds: the lower inclusive, the upper exclusive.

    Raises:
        ValueError: there is no such bucket.
    """
    if not 0 <= index < LATENCY_BUCKETS:
        raise ValueError(f"latency bucket {index}: expected 0 to {LATENCY_BUCKETS - 1}")
    if index < 2 * SUB_BUCKETS:
        return index, index + 1
    shift = (index >> _SUB_BITS) - 1
    lower = (index - (shift << _SUB_BITS)) << shift
    return lower, lower + (1 << shift)
