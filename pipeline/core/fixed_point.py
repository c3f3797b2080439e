"""Fractions as integers, so that their sums don't depend on the order of addition."""

FRACTION_ONE = 1 << 40
"""The integer that represents 1."""


def fixed(value: float) -> int:
    """`value` as the integer round(value · 2^40)."""
    return round(value * FRACTION_ONE)


def mean_of_fixed(fixed_sum: int, count: int) -> float | None:
    """The mean of `count` values whose `fixed` integers add up to `fixed_sum`; None where there are none."""
    return fixed_sum / (count * FRACTION_ONE) if count else None
