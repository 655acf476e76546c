"""The public class: an index of a person's own documents."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kogata.ask.paths import under
from kogata.ask.store import schema
from kogata.ask.store.filters import Filter
from kogata.ask.store.lock import WriterLock
from kogata.ask.store.reader import Store
from kogata.ask.store.rows import check_embedder
from kogata.ask.store.schema import shown
from kogata.errors import BadInput, StoreError

if TYPE_CHECKING:
    from kogata.ask.answers.answer import Answer
    from kogata.ask.answers.written import Sources
    from kogata.ask.indexing.report import Progress, Report
    from kogata.ask.search.retrieve import Mode, SearchResult
    from kogata.ask.store.rows import EmbedderInfo
    from kogata.ask.store.status import Status
    from kogata.ask.store.writer import Writer
    from kogata.run.encoder import Encoder, Precision
    from kogata.run.model import Model

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class Index:
    """Documents made searchable by words and by meaning, in one file.

    Example::

        import kogata

        with kogata.Index("papers.kogata") as index:
            index.add(["~/papers"])
            for hit in index.search("how are tides measured", k=3).hits:
                print(hit.path, hit.page, hit.snippet)
            print(index.ask("How are tides measured?").text)

    Searching may be done from several threads and while another process (or thread) adds documents: it sees the
    state of the last document that was finished. Writing takes a lock that only one process or thread can hold.

    Args:
        path: The index file, made by the first :meth:`add`. None: ``$KOGATA_INDEX``, or the user's data directory.
        model: The embedder: "default", a folder in Hugging Face layout, a hub id, or an :class:`kogata.Encoder`.
            None: the one the index was made with, else the default.
        precision: Arithmetic of the embedder, see :class:`kogata.Encoder`.
        threads: Threads of the embedder; None: as many as this process may use.

    Raises:
        BadInput: ``path`` is a folder.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, model: str | os.PathLike[str] | Encoder | None = None,
        precision: Precision = "auto", threads: int | None = None,
    ) -> None:  # fmt: skip
        self.path: Path = schema.resolve(path)
        self._model = model
        self._precision = precision
        self._threads = threads
        self._guard = threading.RLock()
        self._embedder: Encoder | None = None
        self._source = ""  # what _embedder was loaded from
        self._store: Store | None = None

    # --- writing

    def add(
        self, paths: PathLike | Iterable[PathLike], *, exclude: Sequence[str] | None = None,
        progress: Progress | None = None, workers: int | None = None,
    ) -> Report:  # fmt: skip
        """Index files and folders, and keep knowing them: later runs of :meth:`refresh` bring them up to date.

        Unchanged files are skipped, so the same call again is cheap.

        Args:
            paths: Files or folders.
            exclude: Patterns (as in .gitignore) of what to leave out of these folders, in place of the ones they had.
            progress: Called with a :class:`~kogata.ask.indexing.report.ProgressEvent` now and then.
            workers: Parser processes; None: as many as there are cores.

        Raises:
            BadInput: A path does not exist, or none was given.
            LockedError: Another indexer is at work; the message says which.
            EmbedderMismatch: The index was made with another embedder.
            StoreError: The index cannot be written (a full disk, say); what was committed before stays.
        """
        wanted = _existing(paths)
        with self._writing() as writer:
            return self._run(writer, _know(writer, wanted, exclude), progress, workers)

    def know(self, paths: PathLike | Iterable[PathLike], *, exclude: Sequence[str] | None = None) -> None:
        """As :meth:`add`, but read nothing yet: the next :meth:`refresh` (or a :meth:`watch`) does.

        Raises:
            As :meth:`add`.
        """
        wanted = _existing(paths)
        with self._writing() as writer:
            _know(writer, wanted, exclude)

    def refresh(self, *, progress: Progress | None = None, workers: int | None = None) -> Report:
        """Bring all known folders up to date.

        Raises:
            StoreError: There is no index yet, or nothing in it. And as :meth:`add`.
        """
        self._must_exist()
        with self._writing() as writer:
            return self._run(writer, None, progress, workers)

    def watch(self, *, progress: Progress | None = None, stop: threading.Event | None = None) -> Iterator[Report]:
        """Bring the known folders up to date, then again whenever something in them changes.

        Args:
            progress: As in :meth:`add`.
            stop: Ends the watch when it is set; Ctrl-C does so too.

        Yields:
            The report of each refresh.

        Raises:
            As :meth:`refresh`.
        """
        from kogata.ask.indexing.watch import watch

        def refresh() -> Report:
            return self.refresh(progress=progress)

        return watch(refresh, self.known, self.path, stop or threading.Event())

    def rebuild(self, *, progress: Progress | None = None) -> Report:
        """Make all vectors anew with ``model``; until that is done the old ones are used. No document is read again.

        A rebuild that was stopped goes on where it was.

        Raises:
            As :meth:`refresh`.
        """
        from kogata.ask.indexing.rebuilding import rebuild

        self._must_exist()
        with self._writing() as writer:
            load, source = self._model_for(writer.embedder())
            return rebuild(writer, load(), source, progress)

    def forget(self, paths: PathLike | Iterable[PathLike]) -> int:
        """Take files or folders out of the index; the files themselves are not touched.

        What is inside a folder that stays known is left out of later runs too, until it is added again.

        Returns:
            The number of documents taken out.

        Raises:
            BadInput: A path that the index knows nothing of.
        """
        from kogata.ask.store.manifest import refresh_segments

        wanted = [absolute(path) for path in _listed(paths)]
        if not wanted:
            raise BadInput("No path was given to forget.")
        self._must_exist()
        with self._writing() as writer:
            folders, documents = writer.folders(), writer.documents()
            rows = [*(folder.path for folder in folders), *(document.path for document in documents)]
            for path in wanted:
                if not any(under(row, path) for row in rows):
                    known = ", ".join(shown(row.path) for row in folders) or "no folder"
                    raise BadInput(f"The index knows nothing of {shown(path)}.", hint=f"It knows: {known}.")
            gone: set[int] = set()
            for path in wanted:
                inside = [row for row in documents if under(row.path, path)]
                writer.forget(path, [row.id for row in inside])
                gone |= {row.id for row in inside if row.code is None}
            refresh_segments(writer)
            writer.tidy(merge=True)  # nothing of what is forgotten stays in the file
        return len(gone)

    def _must_exist(self) -> None:
        if not self.path.exists():
            raise schema.no_index(self.path)

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        from kogata.ask.store.writer import Writer

        with WriterLock(self.path), Writer(self.path) as writer, schema.plain_errors(self.path):
            yield writer

    def _run(
        self, writer: Writer, paths: Sequence[bytes] | None, progress: Progress | None, workers: int | None
    ) -> Report:
        from kogata.ask.indexing.run import Run

        folders = [row for row in writer.folders() if paths is None or row.path in paths]
        if not folders:
            raise StoreError("The index knows no folder yet.", hint="Add one with `kogata index PATH…`.")
        stored = writer.embedder()
        load, source = self._model_for(stored)
        if self._model is not None and stored is not None:
            # Said before anything is read, and also where nothing has changed and no vector is due.
            model = load()
            check_embedder(stored, model.identity, model.name)
        return Run(writer, load, source, progress, workers).run(folders)

    def _model_for(self, stored: EmbedderInfo | None) -> tuple[Callable[[], Encoder], str]:
        """How to get the embedder, loaded once and kept, and what to call it."""
        wanted = self._model if self._model is not None else stored.source if stored else "default"
        if not isinstance(wanted, (str, os.PathLike)):
            given = wanted
            return (lambda: given), given.name
        source = os.path.abspath(wanted) if os.path.isdir(wanted) else os.fspath(wanted)

        def load() -> Encoder:
            with self._guard:
                if self._embedder is None or self._source != source:
                    from kogata.run.encoder import Encoder

                    self._embedder = Encoder(source, precision=self._precision, threads=self._threads)
                    self._source = source
                return self._embedder

        return load, source

    # --- reading

    @property
    def store(self) -> Store:
        """The open index, for reading.

        Raises:
            StoreError: There is none yet, or it cannot be read.
        """
        with self._guard:
            if self._store is None:
                self._store = Store.open(self.path)
            return self._store

    def search(
        self, query: str, k: int = 10, mode: Mode = "hybrid", *, paths: Sequence[str] = (), kinds: Sequence[str] = (),
        exact: bool = False,
    ) -> SearchResult:  # fmt: skip
        """The passages that match a query best.

        Args:
            query: A question or some words, in any language.
            k: How many.
            mode: "hybrid", or "meaning" or "words" alone (words need no model).
            paths: Only these files or folders (absolute, relative, or a trailing part of the path) or globs.
            kinds: Only these types, such as "pdf".
            exact: Compare with every vector in full instead of a shortlist by a prefix.

        Raises:
            BadInput: An empty or overlong query, k below 1, an unknown mode or type.
            StoreError: There is no index, or it cannot be read.
            EmbedderMismatch: The index was made with another embedder than ``model``.
        """
        from kogata.ask.search import retrieve

        where = Filter(tuple(paths), tuple(kinds))
        return retrieve.search(self.store, self._query_model(mode), query, k=k, mode=mode, where=where, exact=exact)

    def ask(
        self, query: str, k: int = 10, *, paths: Sequence[str] = (), kinds: Sequence[str] = (), exact: bool = False,
        writer: Model | None = None,
    ) -> Answer:  # fmt: skip
        """Answer a question from the documents, every sentence with where it stands; or say that it is not there.

        Args:
            query: The question.
            k: How many passages to look at.
            paths, kinds, exact: As in :meth:`search`.
            writer: A model (of :func:`kogata.load`) that writes the answer from the passages; None: their best
                sentences themselves.

        Raises:
            As :meth:`search`, and BadInput where the question does not fit into the model's context.
        """
        if writer is not None:
            from kogata.ask.answers import written

            return written.write(self.find(query, k, paths=paths, kinds=kinds, exact=exact), writer)
        from kogata.ask.answers import answer

        where = Filter(tuple(paths), tuple(kinds))
        return answer.answer(self.store, self._query_model("hybrid"), query, k=k, where=where, exact=exact)

    def find(
        self, query: str, k: int = 10, *, paths: Sequence[str] = (), kinds: Sequence[str] = (), exact: bool = False
    ) -> Sources:
        """What a model can write an answer from (:mod:`kogata.ask.answers.written`); arguments as of :meth:`ask`."""
        from kogata.ask.answers import written

        where = Filter(tuple(paths), tuple(kinds))
        return written.find(self.store, self._query_model("hybrid"), query, k=k, where=where, exact=exact)

    def _query_model(self, mode: str) -> Encoder | None:
        """The embedder where a search of this mode can use one."""
        stored = self.store.embedder()
        if mode == "words" or stored is None:
            return None
        load, _ = self._model_for(stored)
        return load()

    def known(self) -> list[bytes]:
        """The folders and files that the index was given; none where there is no index yet."""
        return [row.path for row in self.store.folders()] if self.path.exists() else []

    def encoder(self) -> Encoder:
        """The embedder, loaded: ``model``, the one the index was made with, or the default.

        Raises:
            ModelError: It cannot be loaded.
            EmbedderMismatch: ``model`` is another one than the index's.
        """
        stored = self.store.embedder() if self.path.exists() else None
        model = self._model_for(stored)[0]()
        check_embedder(stored, model.identity, model.name)
        return model

    def status(self) -> Status:
        """Folders, counts, sizes, and every file that is not searchable with the reason."""
        from kogata.ask.store.status import read_status

        return read_status(self.store)

    def close(self) -> None:
        """Close the files. The index may be used again afterwards."""
        with self._guard:
            if self._store is not None:
                self._store.close()
            self._store = None

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def absolute(path: PathLike) -> bytes:
    """A path as the index keeps it: absolute bytes, ``~`` expanded, symbolic links left alone.

    Raises:
        BadInput: It is empty, which would mean the current folder.
    """
    if not os.fsencode(path):
        raise BadInput("An empty path was given.", hint="For the current folder say `.`.")
    return os.path.abspath(os.path.expanduser(os.fsencode(path)))


def _existing(paths: PathLike | Iterable[PathLike]) -> list[bytes]:
    wanted = [absolute(path) for path in _listed(paths)]
    if not wanted:
        raise BadInput("No path was given to index.", hint="Name a file or a folder.")
    for path in wanted:
        if not os.path.lexists(path):
            raise BadInput(f"There is no file or folder {shown(path)}.")
    return wanted


def _know(writer: Writer, paths: Sequence[bytes], exclude: Sequence[str] | None) -> list[bytes]:
    """The known folders that take care of the paths, made known where they were not."""
    roots = [_root_for(path, writer) if exclude is None else path for path in paths]
    for root in roots:
        writer.add_folder(root, exclude)
    return roots


def _root_for(path: bytes, writer: Writer) -> bytes:
    """The known folder that takes care of a path already, else the path itself."""
    folders = {row.id: row.path for row in writer.folders()}
    if path in folders.values() or any(under(path, forgotten) for forgotten in writer.forgotten()):
        return path
    return next((folders[row.folder_id] for row in writer.documents() if under(row.path, path)
                 and under(path, folders[row.folder_id])), path)  # fmt: skip


def _listed(paths: PathLike | Iterable[PathLike]) -> list[PathLike]:
    return [paths] if isinstance(paths, (str, bytes, os.PathLike)) else list(paths)
