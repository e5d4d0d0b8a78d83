"""Work allowed to a search, counted in multiplications instead of seconds, so that equal calls end equally."""

from __future__ import annotations

from dataclasses import dataclass

# Multiplications of one nominal processor second, about what one core of 2024 does on matrices of middling size.
RATE = 6e9
# What a call costs before its first multiplication (Python and numpy), in multiplications.
CALL = 1.5e5


@dataclass
class Budget:
    """seconds: nominal processor seconds allowed; the load of the machine changes nothing about where it ends."""

    seconds: float
    spent: float = 0.0

    def charge(self, multiplications: float, calls: float = 1.0) -> None:
        self.spent += multiplications + calls * CALL

    @property
    def is_over(self) -> bool:
        return self.spent >= self.seconds * RATE

    @property
    def left(self) -> float:
        """Nominal seconds left, 0 when it is over."""
        return max(0.0, self.seconds - self.spent / RATE)
