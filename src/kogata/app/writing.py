"""`kogata run` and `kogata chat`: a model's answers on the terminal, or in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kogata.app.progress import Meter
from kogata.app.terminal import Screen, human_bytes, human_time, print_json, safe_line, safe_lines, safe_path
from kogata.errors import BadInput, KogataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kogata.ask.answers.written import CitedText, Sources
    from kogata.run.engine import Answer
    from kogata.run.model import Model
    from kogata.run.sampling import SamplingParams

OK, FAILED, NOT_FOUND = 0, 1, 3
HELP = """/new   begin a new conversation
/undo  take back the last question and its answer
/exit  end (or Ctrl-D)"""
REDRAW = 0.1  # seconds between two drawings of a line


@dataclass
class Timing:
    """How long an answer took.

    Attributes:
        prompt_tokens, tokens: Read and written.
        cached_tokens: Of the prompt, those that were known already.
        first: Seconds until the first token was there.
        seconds: Until the last one was.
    """

    prompt_tokens: int
    tokens: int = 0
    cached_tokens: int = 0
    first: float = 0.0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        read = self.prompt_tokens - self.cached_tokens
        return {
            "prompt_tokens": self.prompt_tokens, "cached_tokens": self.cached_tokens, "completion_tokens": self.tokens,
            "first_token_seconds": round(self.first, 4), "seconds": round(self.seconds, 4),
            "prompt_tokens_per_second": round(read / self.first, 2) if self.first else None,
            "tokens_per_second": self.rate,
        }  # fmt: skip

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first."""
        passed = self.seconds - self.first
        return round((self.tokens - 1) / passed, 2) if self.tokens > 1 and passed > 0 else None

    def line(self) -> str:
        """For a person."""
        rate = "" if self.rate is None else f", then {self.rate:,.1f} tokens/s"
        known = f" ({self.cached_tokens:,} of them known)" if self.cached_tokens else ""
        return f"[{self.prompt_tokens:,}{known} + {self.tokens:,} tokens; first after {self.first:.2f} s{rate}]"


class Writer:
    """Prints an answer as it is written. On a terminal, controls of the model's text are made visible."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stdout.isatty()
        self._drawn = 0.0
        self._line = False

    def answer(
        self, model: Model, prompt: NDArray[np.int32], params: SamplingParams, cited: CitedText | None = None
    ) -> tuple[Answer, str, Timing]:
        """Let the model answer; returns the answer, its text and how long it took. ``cited`` checks its marks."""
        began = time.perf_counter()
        (answer,) = model.engine.submit(prompt, params)
        timing, said = Timing(len(prompt)), []
        try:
            while not answer.over:
                model.engine.step()
                now = time.perf_counter() - began
                if not answer.ids:
                    self._reading(answer.prefilled, len(prompt), now)
                elif timing.first == 0.0:
                    timing.first, timing.cached_tokens = now, answer.reused
                    self._clear()
                timing.tokens, timing.seconds = len(answer.ids), now
                while answer.pieces:
                    text = answer.pieces.popleft().text
                    said.append(text if cited is None else cited.push(text))
                    self._print(said[-1])
            if cited is not None:
                said.append(cited.flush())
                self._print(said[-1])
        finally:
            self._clear()
            model.engine.drop(answer)
        if answer.error is not None:
            raise answer.error
        return answer, "".join(said), timing

    def _print(self, text: str) -> None:
        if not self._quiet and text:
            sys.stdout.write(safe_lines(text) if self._terminal else text)
            sys.stdout.flush()

    def _reading(self, done: int, total: int, seconds: float) -> None:
        """How far the prompt is read, on stderr where that is a terminal."""
        if not sys.stderr.isatty() or seconds - self._drawn < REDRAW or seconds < 0.5:
            return
        left = human_time(seconds / max(done, 1) * (total - done))
        sys.stderr.write(f"\r\x1b[2Kreading the prompt: {done:,} of {total:,} tokens, {left} left")
        sys.stderr.flush()
        self._drawn, self._line = seconds, True

    def _clear(self) -> None:
        if self._line:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._line = False


def run(
    model: str, prompt: str, *, system: str | None, raw: bool, as_json: bool, loading: Mapping[str, Any],
    sampling: Mapping[str, Any],
) -> int:  # fmt: skip
    """One answer to one prompt.

    Raises:
        BadInput: An option or the prompt is not accepted.
        KogataError: The model cannot be run.
    """
    from kogata.run.sampling import SamplingParams

    params = SamplingParams(**sampling)
    loaded = load_model(model, loading)
    if raw or loaded.packed.chat_template is None:
        if system is not None:
            raise BadInput("--system is for models with a chat template, and not for --raw.")
        ids = loaded.tokens(prompt)
    else:
        ids = loaded.template.render_ids(_messages(system, [("user", prompt)]), loaded.tokenizer)
    writer = Writer(quiet=as_json)
    answer, text, timing = writer.answer(loaded, ids, params)
    if as_json:
        print_json({"model": loaded.name, "text": text, "finish_reason": answer.finish, "usage": timing.to_dict()})
        return OK
    sys.stdout.write("" if text.endswith("\n") else "\n")
    sys.stdout.flush()
    if sys.stderr.isatty():
        sys.stderr.write(f"\x1b[2m{timing.line()}\x1b[0m\n")
    return OK


def ask(
    model: str, find: Callable[[], Sources], *, as_json: bool, loading: Mapping[str, Any], sampling: Mapping[str, Any]
) -> int:  # fmt: skip
    """An answer that a model writes from passages, with its sources below it.

    Args:
        model: Who writes.
        find: Looks for the passages; the model is loaded only where there are some.
        loading, sampling: Of the model and of its answer.

    Raises:
        BadInput: An option or the question is not accepted.
        KogataError: The index cannot be read, or the model not be run.
    """
    from kogata.app.results import print_answer, print_sources
    from kogata.ask.answers import written
    from kogata.run.sampling import SamplingParams

    SamplingParams(**sampling)  # what is not accepted is said before anything is looked for
    sources = find()
    if not sources.passages:
        refused = written.refusal(sources)
        if as_json:
            print_json(refused.to_dict())
        else:
            print_answer(Screen(), refused)
        return NOT_FOUND
    loaded = load_model(model, loading)
    draft = written.draft(sources, loaded, sampling=sampling)
    try:
        answer, text, timing = Writer(quiet=as_json).answer(loaded, draft.ids, draft.params, draft.said)
    except KeyboardInterrupt:
        sys.stdout.write("\n" if draft.said.text and not as_json else "")
        raise KeyboardInterrupt("the answer is not complete") from None
    made = draft.answer(loaded.name, answer.finish, timing.to_dict())
    if as_json:
        print_json(made.to_dict())
        return OK
    sys.stdout.write("" if text.endswith("\n") else "\n")
    sys.stdout.flush()
    if sys.stderr.isatty():
        sys.stderr.write(f"\x1b[2m{timing.line()}\x1b[0m\n")
    print_sources(Screen(), made)
    return OK


def chat(model: str, *, system: str | None, loading: Mapping[str, Any], sampling: Mapping[str, Any]) -> int:
    """A conversation on the terminal.

    Raises:
        BadInput: An option is not accepted.
        KogataError: The model cannot be run, or not be talked with.
    """
    from kogata.run.sampling import SamplingParams

    params = SamplingParams(**sampling)
    loaded = load_model(model, loading)
    template = loaded.template
    _line_editing()
    print(f"{loaded.name}, {loaded.decoder.context:,} tokens of context. /help lists what can be typed besides text.")
    turns: list[tuple[str, str]] = []
    writer = Writer(quiet=False)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return OK
        if line in ("/exit", "/quit"):
            return OK
        if line == "/help":
            print(HELP)
            continue
        if line == "/new":
            turns.clear()
            continue
        if line == "/undo":
            del turns[-2:]
            continue
        if not line:
            continue
        asked = [*turns, ("user", line)]
        try:
            ids = template.render_ids(_messages(system, asked), loaded.tokenizer)
            _, text, timing = writer.answer(loaded, ids, params)
        except KeyboardInterrupt:  # the answer is not wanted; the conversation goes on without it
            print("\n(stopped)")
            continue
        except KogataError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        print()
        sys.stderr.write(f"\x1b[2m{timing.line()}\x1b[0m\n" if sys.stderr.isatty() else "")
        turns = [*asked, ("assistant", text)]


def convert(model: str, directory: str, *, as_json: bool, **storage: Any) -> int:
    """Pack a model into a directory of its own.

    Raises:
        KogataError: The model cannot be read, or the directory not be written.
    """
    from kogata.app.models import fetch_with_progress
    from kogata.weights import convert_decoder

    fetch_with_progress(model, "writer", quiet=as_json)
    began = time.perf_counter()
    with Meter("Packing", shown=_millions, quiet=as_json) as meter:
        made = convert_decoder(model, Path(directory).expanduser(), progress=meter, **storage)
    _print_notes(made.name, made.notes)
    kinds: dict[str, int] = {}
    for linear in made.linears.values():
        kinds[linear.kind] = kinds.get(linear.kind, 0) + linear.nbytes
    seconds = time.perf_counter() - began
    if as_json:
        print_json({"model": made.name, "directory": directory, "bytes": made.nbytes, "bytes_by_storage": kinds,
                    "seconds": round(seconds, 2)})  # fmt: skip
        return OK
    parts = ", ".join(f"{human_bytes(size)} {kind}" for kind, size in sorted(kinds.items(), key=lambda item: -item[1]))
    print(
        f"{safe_line(made.name)} is in {safe_path(directory)}: {human_bytes(made.nbytes)} ({parts}), {seconds:.1f} s."
    )
    return OK


def _millions(n_weights: int) -> str:
    return f"{n_weights / 1e6:,.0f} M weights"


def load_model(model: str, loading: Mapping[str, Any]) -> Model:
    """What a command that takes a writer does first: fetch it, where it is a hub's and not here, and load it.

    Raises:
        BadInput: An option of loading is not accepted.
        KogataError: The model cannot be fetched or run.
    """
    from kogata.app.models import fetch_with_progress
    from kogata.run.model import load

    fetch_with_progress(model, "writer", quiet=not sys.stderr.isatty())
    began = time.perf_counter()
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[2mloading the model …\x1b[0m")
        sys.stderr.flush()
    try:
        with Meter("Packing", shown=_millions, quiet=not sys.stderr.isatty()) as meter:
            loaded = load(model, progress=meter, **loading)
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[2K")
            if (took := time.perf_counter() - began) > 2:
                sys.stderr.write(f"\x1b[2mloaded in {took:.1f} s\x1b[0m\n")
    _print_notes(loaded.name, loaded.packed.notes)
    return loaded


def is_prompt(model: str) -> bool:
    """Whether what stands where a model is named is a prompt instead: it has spaces, and is not a path."""
    looks_like_path = model.startswith(("/", "./", "../", "~")) or os.path.exists(model)  # False for a long prompt
    return any(letter.isspace() for letter in model) and not looks_like_path


def prompt_of(words: Sequence[str], files: Sequence[str]) -> str:
    """The prompt: files in their order, then the arguments; "-" among either is stdin.

    Raises:
        BadInput: There is none, or one is not UTF-8 text.
    """
    parts = [_text_of(file) for file in files]
    given = " ".join(words)
    if given == "-" or (not given and not files and not sys.stdin.isatty()):
        given = _text_of("-")
    if given:
        parts.append(given)
    if not "".join(parts).strip():
        raise BadInput("There is no prompt.", hint='kogata run MODEL "Once upon a time", or pipe a text into it.')
    return "\n".join(parts)


def _text_of(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).expanduser().read_bytes()
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{'stdin' if file == '-' else file} is not UTF-8 text.") from None


def _messages(system: str | None, turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    before = [] if system is None else [("system", system)]
    return [{"role": role, "content": content} for role, content in (*before, *turns)]


def _print_notes(name: str, notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {safe_line(name)}: {note}", file=sys.stderr)


def _line_editing() -> None:
    """Arrow keys and history for what is typed."""
    try:
        import readline
    except ImportError:  # Windows has its own
        return
    readline.set_history_length(1000)
