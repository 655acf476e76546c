"""What a machine is: pure Python over what the system says of itself."""

from __future__ import annotations

from kogata.plan.hardware import Cache, Hardware, this_machine

__all__ = ["Cache", "Hardware", "this_machine"]
