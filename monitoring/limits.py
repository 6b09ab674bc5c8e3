"""Alarm limits for a declared rate of false alarms, from the variation that a quiet time has shown.

Transactions of one card are alike, so the theory of independent rows sets limits far too low. Days are nearly
independent: of each day of the reference the largest value of the figure is taken, and the limit is the upper
end of a prediction interval for one more day, the logarithms taken as normal with unknown mean and variance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

#: Declared: days between two false alarms, over all figures that one detector watches together.
QUIET_DAYS = 30
#: Fewer days say too little about how days differ.
FEWEST_DAYS = 4
#: Days that hardly differ by chance do not make a limit that any next day passes.
_LEAST_DEVIATION = 0.1


def t_probability(t: float, degrees: int) -> float:
    """P(T <= t) of Student's distribution with whole degrees of freedom.

    Abramowitz, Stegun: Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, terms = (cosine, cosine) if odd else (1.0, 1.0)
    if odd and degrees == 1:
        terms = 0.0
    for power in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (power - 1) / power
        terms += term
    inside = 2 / math.pi * (angle + sine * terms) if odd else sine * terms
    return (1 + inside) / 2


@functools.lru_cache(maxsize=256)
def t_quantile(probability: float, degrees: int) -> float:
    """The value that Student's distribution stays below with this probability, above one half."""
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, degrees) < probability else (low, middle)
    return high


def limit(daily: Sequence[float], figures: int) -> float:
    """What one of `figures` figures watched together passes by chance once in `QUIET_DAYS` days at most.

    Args:
        daily: the largest positive value of each quiet day.

    Returns:
        infinity where there are too few days.
    """
    logs = [math.log(value) for value in daily if math.isfinite(value) and value > 0]
    count = len(logs)
    if count < FEWEST_DAYS:
        return math.inf
    mean = math.fsum(logs) / count
    deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in logs) / (count - 1))
    deviation = max(deviation, _LEAST_DEVIATION)
    quantile = t_quantile(1 - 1 / (QUIET_DAYS * figures), count - 1)
    return math.exp(mean + quantile * deviation * math.sqrt(1 + 1 / count))
