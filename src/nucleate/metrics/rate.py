"""A rate that cannot lose its denominator."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """hits out of asked. A sample that failed to build, relax or parse was still asked for."""

    hits: int
    asked: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.asked:
            raise ValueError(f"expected 0 <= hits <= asked, got {self.hits} hits out of {self.asked}")

    @property
    def value(self) -> float:
        """The fraction, or NaN where nothing was asked."""
        return self.hits / self.asked if self.asked else math.nan

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's score interval (1927); z = 1.96 covers about 95 %. Nothing asked, nothing known: (0, 1).

        The p with |hits/n - p| = z sqrt(p (1 - p) / n). Unlike the normal interval it stays inside [0, 1] and
        is not of width zero for 0 or n hits.
        """
        if not self.asked:
            return 0.0, 1.0
        n, p, z_squared = self.asked, self.value, z * z
        middle = (p + z_squared / (2 * n)) / (1 + z_squared / n)
        half = z * math.sqrt(p * (1 - p) / n + z_squared / (4 * n * n)) / (1 + z_squared / n)
        low = 0.0 if self.hits == 0 else middle - half  # exact at the ends, where the difference only rounds
        high = 1.0 if self.hits == n else middle + half
        return low, high

    def __add__(self, other: "Rate") -> "Rate":
        """Both experiments taken together."""
        return Rate(self.hits + other.hits, self.asked + other.asked)

    def __str__(self) -> str:
        if not self.asked:
            return "0/0"
        low, high = self.interval()
        return f"{self.hits}/{self.asked} = {self.value:.1%} [{low:.1%}, {high:.1%}]"
