"""What operations and bytes cost in energy: modelled, from published figures.

The figures are those of M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure
1.1.9: a 45 nm process at 0.9 V, and a DRAM of that time at the low end of the 1.3 to 2.6 nJ that it gives for 64 bits.
A processor of today needs less of everything, and more for fetching and decoding instructions than for arithmetic:
ratios between models mean something, joules do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from kogata.plan.operations import Operations

__all__ = ["ADDITION_PJ", "DRAM_PJ_PER_BYTE", "MULTIPLICATION_PJ", "SOURCE", "Energy", "energy"]

SOURCE = "Horowitz, ISSCC 2014, figure 1.1.9: 45 nm, 0.9 V; DRAM 1.3 nJ for 64 bits"

MULTIPLICATION_PJ = {"int8": 0.2, "bf16": 1.1, "f32": 3.7}
"""Picojoules; that of bf16 is the figure for float16, which has a wider mantissa."""
ADDITION_PJ = {"int32": 0.1, "f32": 0.9}
DRAM_PJ_PER_BYTE = 1300 / 8


@dataclass(frozen=True)
class Energy:
    """Modelled joules.

    Attributes:
        multiplications, additions: Of the arithmetic.
        memory: Of the bytes that come from DRAM.
    """

    multiplications: float
    additions: float
    memory: float

    @property
    def arithmetic(self) -> float:
        """Without the memory."""
        return self.multiplications + self.additions

    @property
    def total(self) -> float:
        """All together."""
        return self.arithmetic + self.memory


def energy(operations: Operations) -> Energy:
    """Joules of what was counted; every byte is taken to come from DRAM."""
    return Energy(
        sum(n * MULTIPLICATION_PJ[kind] for kind, n in operations.multiplications.items()) * 1e-12,
        sum(n * ADDITION_PJ[kind] for kind, n in operations.additions.items()) * 1e-12,
        operations.nbytes * DRAM_PJ_PER_BYTE * 1e-12,
    )
