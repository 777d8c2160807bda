"""Poisson draws from a handed-in Random."""

from math import exp
from random import Random

# Above this mean a normal draw, rounded, is a Poisson one for our purposes.
_MANY = 12.0


def poisson(random: Random, mean: float) -> int:
    """Draw a count with this mean, 0 or more."""
    if mean > _MANY:
        return max(0, round(random.gauss(mean, mean**0.5)))
    # Knuth's product of uniforms.
    draw = random.random
    floor, count, product = exp(-mean), 0, draw()
    while product > floor:
        count += 1
        product *= draw()
    return count
