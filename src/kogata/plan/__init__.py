"""What a machine is and what a model costs on it: pure Python over given figures."""

from __future__ import annotations

from kogata.plan.hardware import Cache, Hardware, this_machine

__all__ = ["Cache", "Hardware", "this_machine"]
