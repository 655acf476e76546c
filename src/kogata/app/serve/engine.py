"""The engine process: the models, the index and the indexing, called through messages on stdin and stdout.

Searches run in a few threads; texts to embed, questions of searches among them, go through one batcher; one thread
indexes; one thread writes. Results leave as JSON ready to be sent, so that the http process only passes bytes on; an
answer that is written leaves in parts.
"""

from __future__ import annotations

import itertools
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from kogata.app.serve.batching import Batcher
from kogata.app.serve.indexing import Indexing
from kogata.app.serve.messages import (
    Call,
    Cancel,
    Done,
    Failed,
    FromEngine,
    Part,
    Progress,
    Ready,
    Start,
    decode_to_engine,
    frame,
    read_frame,
)
from kogata.ask.answers import answer, written
from kogata.ask.index import Index, absolute
from kogata.ask.paths import under
from kogata.ask.search import retrieve
from kogata.ask.store.catalogue import read_entries, read_entry
from kogata.ask.store.filters import Filter
from kogata.ask.store.schema import shown
from kogata.ask.store.status import read_status
from kogata.errors import BadInput, EmbedderMismatch, KogataError, NotInIndex
from kogata.run.encoder import normalise

if TYPE_CHECKING:
    from kogata.app.serve.writing import Writing

SEARCHERS = 4
"""Searches that run at once: a few more than cores, since each waits for the batcher now and then."""

LONGEST_TEXT = 200_000
"""Characters of a document's text that one call returns."""

_to_json = msgspec.json.Encoder().encode


class Engine:
    """What can be called. A method named in :data:`CALLS` takes keyword arguments and returns the bytes of its answer,
    or a future of them. One named in :data:`STREAMS` gets before them what takes the answer's parts as they come.

    Args:
        start: What to serve.
        tell: Takes every change of the indexing's state.
    """

    def __init__(self, start: Start, tell: Callable[[Progress], None]) -> None:
        self._start = start
        self._index = Index(start.index, model=start.model, precision=start.precision, threads=start.threads)  # type: ignore[arg-type]
        self._encoder: Any = Batcher(self._index.encoder())
        self._writing: Writing | None = None
        if start.writer is not None:
            from kogata.app.serve.writing import Writing

            self._writing = Writing(start.writer, start.threads)
        self._indexing = Indexing(self._index, tell)
        if not self._index.path.exists():  # made before anybody can search in what is half made
            with suppress(KogataError):  # the indexing tries again, and says what is wrong
                self._know()
        self._indexing.start(self._know)

    @property
    def follows(self) -> bool:
        """Whether the embedder is the one that the index was made with, whichever that is."""
        return self._start.model is None

    def close(self) -> None:
        """Let the run that is going on stop at its next step."""
        self._indexing.close()
        self._encoder.close()
        if self._writing is not None:
            self._writing.close()
        self._index.close()

    def _know(self) -> None:
        """Make known what is to be served, unless an earlier life of the engine has: it may be forgotten by now."""
        if not self._start.first and self._index.path.exists():
            return
        manual = None if self._start.manual is None else absolute(self._start.manual)
        paths = [absolute(path) for path in self._start.paths]
        known = self._index.known()
        if paths:
            if manual in known and manual not in paths:
                self._index.forget([manual])
            if there := [path for path in paths if os.path.lexists(path)]:
                self._index.know(there)
        elif not known and manual is not None:
            self._index.know([manual])

    # --- embedding

    def models(self) -> bytes:
        """The models there are: the one that embeds, and the one that writes or null."""
        encoder = self._encoder
        embedder = {"id": encoder.name, "dimensions": encoder.dimensions, "max_length": encoder.max_length}
        return _to_json({"embedder": embedder, "writer": None if self._writing is None else self._writing.describe()})

    def embed(self, texts: Sequence[Any], kind: str, dimensions: int | None, long_texts: Any) -> Future[bytes]:
        """The number of tokens, int64, then vectors, float32 [N, D]."""
        width = self._encoder.dimensions if dimensions is None else dimensions
        if not 1 <= width <= self._encoder.dimensions:
            raise BadInput(f"dimensions is {dimensions}; {self._encoder.name} gives 1 to {self._encoder.dimensions}.")
        strings = isinstance(texts[0], str)
        tokens = sum(self._encoder.tokenizer.count(texts) if strings else map(len, texts))

        def finish(vectors_ND: npt.NDArray[np.float32]) -> bytes:
            if width < self._encoder.dimensions:
                vectors_ND = np.ascontiguousarray(vectors_ND[:, :width])
                normalise(vectors_ND)
            return np.int64(tokens).tobytes() + vectors_ND.tobytes()

        return _then([self._encoder.submit(texts, kind, long_texts)], finish)

    def rerank(self, query: str, documents: Sequence[str]) -> Future[bytes]:
        """The number of tokens, and the cosine of the query with each document."""
        tokens = sum(self._encoder.tokenizer.count([query, *documents]))
        asked = self._encoder.submit([query], "query", "window")
        read = self._encoder.submit(documents, "document", "window")

        def finish(query_1D: npt.NDArray[np.float32], vectors_ND: npt.NDArray[np.float32]) -> bytes:
            return _to_json({"tokens": tokens, "scores": (vectors_ND @ query_1D[0]).tolist()})

        return _then([asked, read], finish)

    # --- writing

    def chat(self, tell: Callable[[bytes], None], **asked: Any) -> Future[bytes]:
        """As of :meth:`kogata.app.serve.writing.Writing.chat`."""
        return self._writer().chat(tell, **asked)

    def complete(self, tell: Callable[[bytes], None], **asked: Any) -> Future[bytes]:
        """As of :meth:`kogata.app.serve.writing.Writing.complete`."""
        return self._writer().complete(tell, **asked)

    def write_answer(
        self, tell: Callable[[bytes], None], *, query: str, earlier: Sequence[dict[str, str]], k: int,
        paths: Sequence[str], kinds: Sequence[str], exact: bool, sampling: dict[str, Any], salt: bytes,
    ) -> bytes | Future[bytes]:  # fmt: skip
        """As `kogata ask --writer --json`; ``earlier`` are the turns before the question."""
        writing = self._writer()
        searched = written.searched([*earlier, {"role": "user", "content": query}])
        where = Filter(tuple(paths), tuple(kinds))
        sources = written.find(self._index.store, self._embedder("hybrid"), searched, k=k, where=where, exact=exact)
        if not sources.passages:
            return _to_json(written.refusal(sources).to_dict())
        draft = written.draft(sources, writing.model, question=query, earlier=earlier, sampling=sampling)
        return writing.answer(tell, draft, salt)

    def tokenize(self, **asked: Any) -> bytes:
        """As of :meth:`kogata.app.serve.writing.Writing.tokenize`."""
        return self._writer().tokenize(**asked)

    def detokenize(self, **asked: Any) -> bytes:
        """As of :meth:`kogata.app.serve.writing.Writing.detokenize`."""
        return self._writer().detokenize(**asked)

    def _writer(self) -> Writing:
        if self._writing is None:
            raise BadInput("This server has no model that writes.")
        return self._writing

    # --- searching

    def search(self, query: str, k: int, mode: Any, paths: Sequence[str], kinds: Sequence[str], exact: bool) -> bytes:
        """As `kogata search --json`."""
        where = Filter(tuple(paths), tuple(kinds))
        found = retrieve.search(
            self._index.store, self._embedder(mode), query, k=k, mode=mode, where=where, exact=exact
        )
        return _to_json(found.to_dict())

    def ask(self, query: str, k: int, paths: Sequence[str], kinds: Sequence[str], exact: bool) -> bytes:
        """As `kogata ask --json`."""
        where = Filter(tuple(paths), tuple(kinds))
        found = answer.answer(self._index.store, self._embedder("hybrid"), query, k=k, where=where, exact=exact)
        return _to_json(found.to_dict())

    def _embedder(self, mode: str) -> Any:
        """The embedder where a search of this mode can use one."""
        return None if mode == "words" or self._index.store.embedder() is None else self._encoder

    # --- what is in the index

    def status(self) -> bytes:
        """As `kogata status --json`, without the list of skipped files."""
        status = read_status(self._index.store).to_dict()
        status["n_skipped"] = len(status.pop("skipped"))
        return _to_json(status)

    def documents(self, containing: str, state: str, folder: str, offset: int, limit: int) -> bytes:
        """A page of the known files."""
        total, entries = read_entries(
            self._index.store, containing=containing, state=state, folder=folder, offset=offset, limit=limit
        )
        return _to_json({"total": total, "documents": [self._shown(entry) for entry in entries]})

    def document(self, id: int) -> bytes:
        """One known file."""
        return _to_json(self._shown(self._entry(id)))

    def text(self, id: int, start: int, end: int | None) -> bytes:
        """A stretch of a document's stored text, at most :data:`LONGEST_TEXT` characters."""
        entry = self._entry(id)
        first = min(max(start, 0), entry.n_chars)
        last = min(entry.n_chars if end is None else max(end, first), first + LONGEST_TEXT, entry.n_chars)
        text = self._index.store.context(id, first, last)
        return _to_json(
            {
                "id": id, "path": shown(entry.path), "title": entry.title, "kind": entry.kind, "start": first,
                "end": last, "n_chars": entry.n_chars, "text": text,
            }
        )  # fmt: skip

    def original(self, id: int) -> bytes:
        """Where a document's file is, and what it was when it was read: path, folder, kind, encoding."""
        entry = self._entry(id)
        return msgspec.msgpack.encode(
            {"path": entry.path, "folder": entry.folder, "kind": entry.kind, "encoding": entry.encoding}
        )

    def forget(self, id: int) -> bytes:
        """Take a document out of the index, and its file away if it was uploaded."""
        entry = self._entry(id)
        removed = self._uploaded(entry.path)

        def change() -> None:
            if removed:
                with suppress(FileNotFoundError):
                    os.unlink(entry.path)
            self._index.forget([entry.path])
            if removed:  # one of the same name may be uploaded again: it must not be left out then
                self._index.know([self._start.uploads])

        self._indexing.change(change)
        return _to_json({"id": id, "deleted": True, "file_removed": removed})

    def empty_uploads(self) -> bytes:
        """Remove all uploaded files and what is indexed of them; how many there were."""
        uploads = absolute(self._start.uploads)

        def change() -> int:
            # Names that begin with a dot belong to uploads that are still coming in.
            entries = [entry for entry in os.scandir(uploads) if not entry.name.startswith(b".")]
            files = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
            for path in files:
                with suppress(FileNotFoundError):
                    os.unlink(path)
            if uploads in self._index.known():
                self._index.forget([uploads])
            return len(files)

        return _to_json(self._indexing.change(change) if os.path.isdir(uploads) else 0)

    def take_in(self) -> bytes:
        """Know the folder of uploads; what is in it is read by the next run, which begins at once."""
        uploads = absolute(self._start.uploads)
        if uploads not in self._index.known():  # changes come one after another: it stays so
            self._indexing.change(lambda: self._index.know([uploads]))
        self._indexing.wake()
        return _to_json(True)

    def _entry(self, id_: int) -> Any:
        entry = read_entry(self._index.store, id_) if id_ < 2**63 else None
        if entry is None:
            raise NotInIndex(f"There is no document {id_}.")
        return entry

    def _shown(self, entry: Any) -> dict[str, Any]:
        return {**entry.to_dict(), "uploaded": self._uploaded(entry.path)}

    def _uploaded(self, path: bytes) -> bool:
        return under(path, absolute(self._start.uploads))


CALLS = frozenset(
    {"models", "embed", "rerank", "search", "ask", "status", "documents", "document", "text", "original", "forget",
     "take_in", "empty_uploads", "tokenize", "detokenize"}
)  # fmt: skip

STREAMS = frozenset({"chat", "complete", "write_answer"})
"""Those whose answers come in parts."""

CHANGES = frozenset({"forget", "take_in", "empty_uploads"})
"""Those that write. They wait for the indexing, so a thread of their own does them, one after another."""


class Desk:
    """Takes calls from a stream and answers them on another, in whatever order they get done.

    Args:
        incoming: What the http process sends.
        send: Takes what it is to get; None ends the engine.
    """

    def __init__(self, incoming: Iterator[Start | Call | Cancel], send: Callable[[FromEngine | None], None]) -> None:
        self._incoming = incoming
        self._send = send
        self._searchers = ThreadPoolExecutor(SEARCHERS, "call")
        self._changer = ThreadPoolExecutor(1, "change")
        self._running: dict[int, list[Future[Any]]] = {}

    def run(self) -> None:
        """Serve until the stream ends."""
        start = next(self._incoming)
        assert isinstance(start, Start)
        engine = Engine(start, self._send)
        self._send(Ready(os.getpid()))
        for message in self._incoming:
            if isinstance(message, Call):
                running = self._running[message.id] = []
                threads = self._changer if message.method in CHANGES else self._searchers
                running.append(threads.submit(self._answer, engine, message, running))
            elif isinstance(message, Cancel):
                for future in self._running.pop(message.id, ()):
                    future.cancel()
        engine.close()

    def _answer(self, engine: Engine, call: Call, running: list[Future[Any]]) -> None:
        try:
            if call.method not in CALLS | STREAMS:
                raise BadInput(f"There is no call {call.method!r}.")
            parts = [lambda body: self._send(Part(call.id, body))] if call.method in STREAMS else []
            result = getattr(engine, call.method)(*parts, **call.arguments)
        except Exception as error:
            self._finish(call.id, _failed(call.id, error))
            if isinstance(error, EmbedderMismatch) and engine.follows:
                self._send(None)  # another process made all vectors anew: begin again, with that embedder
            return
        if isinstance(result, Future):
            running.append(result)
            if call.id not in self._running:  # cancelled while its texts were still being counted
                result.cancel()
            result.add_done_callback(lambda done: self._finish(call.id, _outcome(call.id, done)))
        else:
            self._finish(call.id, Done(call.id, result))

    def _finish(self, id_: int, message: FromEngine | None) -> None:
        self._running.pop(id_, None)
        if message is not None:
            self._send(message)


def _then(sources: Sequence[Future[Any]], what: Callable[..., bytes]) -> Future[bytes]:
    """A future of what becomes of the others' results once all are there; cancelling it cancels them."""
    outcome: Future[bytes] = Future()
    undone = itertools.count(len(sources) - 1, -1)  # taking the next number is atomic

    def pass_on(_: Future[Any]) -> None:  # in the thread that made the last result: nothing here may wait
        if next(undone) > 0 or not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(what(*(source.result() for source in sources)))
        except BaseException as error:
            outcome.set_exception(error)

    def drop(done: Future[bytes]) -> None:
        if done.cancelled():
            for source in sources:
                source.cancel()

    outcome.add_done_callback(drop)
    for source in sources:
        source.add_done_callback(pass_on)
    return outcome


def _outcome(id_: int, done: Future[bytes]) -> FromEngine | None:
    if done.cancelled():
        return None
    error = done.exception()
    return Done(id_, done.result()) if error is None else _failed(id_, error)


def _failed(id_: int, error: BaseException) -> Failed:
    if isinstance(error, KogataError):
        return Failed(id_, type(error).__name__, str(error), error.hint)
    traceback.print_exception(error)
    return Failed(id_, "internal", f"{type(error).__name__}: {error}")


def main() -> None:
    """Talk over stdin and stdout; whatever else is printed goes to stderr."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # Ctrl-C goes to the whole group, and a service manager tells every process: the http process ends us in time.
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, signal.SIG_IGN)
    waiting: queue.SimpleQueue[FromEngine | None] = queue.SimpleQueue()

    def write() -> None:
        try:
            while (message := waiting.get()) is not None:
                outgoing.write(frame(message))
                if waiting.empty():
                    outgoing.flush()
            outgoing.flush()
        except Exception as error:
            if not isinstance(error, OSError):  # that is only that nobody listens any more
                traceback.print_exception(error)
        os._exit(0)  # threads in the middle of something end here; nothing that was committed is lost

    writer = threading.Thread(target=write, name="writer", daemon=True)
    writer.start()
    try:
        Desk(_messages(incoming), waiting.put).run()
    except KogataError as error:
        waiting.put(Failed(0, type(error).__name__, str(error), error.hint))
    waiting.put(None)
    writer.join(timeout=5)
    os._exit(0)


def _messages(stream: BinaryIO) -> Iterator[Start | Call | Cancel]:
    while (body := read_frame(stream)) is not None:
        yield decode_to_engine(body)


if __name__ == "__main__":
    main()
