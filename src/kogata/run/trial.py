"""Compiling grammars that anybody may have written.

llguidance bounds the work of each step, but not of all of compiling: there are schemas of a few kilobytes that take
gigabytes, after which the process is ended by Rust, or minutes. So each grammar is compiled in a process of its own
first, which may take a second and some memory: what ends that process is refused.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

from kogata.errors import BadInput

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

PROCESSOR_SECONDS = 1
SECONDS = 15  # by the clock, whatever else the machine does
MEMORY = 768 << 20  # of addresses, of which some 350 MB are left for the grammar
STACK, TRIAL_STACK = 256 << 20, 128 << 20
_AT_ONCE = threading.BoundedSemaphore(2)
_STACK_SIZE = threading.Lock()


@lru_cache(maxsize=64)
def try_out(grammar: str) -> None:
    """Raises BadInput for a grammar that is too complex to be compiled in this process."""
    command = [sys.executable, "-P", "-m", "kogata.run.trial"]
    nowhere = subprocess.DEVNULL
    with _AT_ONCE:
        try:
            ended = subprocess.run(command, input=grammar.encode(), stdout=nowhere, stderr=nowhere, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise BadInput("it is too complex.") from None
    if ended.returncode:
        raise BadInput("it is too complex.")


def compiled(tokens: LLTokenizer, grammar: str, stack: int = STACK) -> LLMatcher:
    """The grammar's matcher, which may be in an error state.

    Made in a thread of its own: llguidance follows references and properties by recursion, some 16 kB of stack for
    each, and the end of the stack is the end of the process. The memory is only used as far as it is reached.
    """
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_lexer_states=20_000, verbose_errors=False)
    pool = ThreadPoolExecutor(1)
    with _STACK_SIZE:
        usual = threading.stack_size(stack)
        try:
            made = pool.submit(LLMatcher, tokens, grammar, log_level=0, limits=limits)
        finally:
            threading.stack_size(usual)
    with pool:
        matcher = made.result()
    if not matcher.is_error():
        matcher.compute_bitmask()  # a form that no text has fails here
    return matcher


def main() -> None:
    """Compile the grammar of the standard input, within limits."""
    grammar = sys.stdin.buffer.read().decode()
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        for which, most in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, PROCESSOR_SECONDS),
            (resource.RLIMIT_AS, MEMORY),
        ):
            resource.setrlimit(which, (most, most))
    from llguidance import LLTokenizer

    compiled(LLTokenizer("byte"), grammar, TRIAL_STACK)
    os._exit(0)  # all is well, and taking it apart would only cost time


if __name__ == "__main__":
    main()
