"""What all tests of this room need."""

from __future__ import annotations

import signal

# A shell that runs the tests in the background has them ignore Ctrl-C, and so the processes that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
