"""The index file: where it is, its tables, and how older files are brought up to date.

One SQLite file holds everything that cannot be made again cheaply. Beside it, made from it:

    <index>.segments/   memory-mapped copies of the vectors (ask/vectors); rebuilt when missing or damaged
    <index>.lock        who is writing (lock.py)

WAL with synchronous=NORMAL: a killed process loses nothing that was committed; a power cut may lose the last few
documents but never leaves a half-written one, and the next run reads those documents again. FULL would add an fsync
to every document for no gain here, because the documents themselves are still on disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from kogata.errors import BadInput, DamagedIndexError, LockedError, NewerIndexError, StoreError

APPLICATION_ID = 0x4B474154  # "KGAT"
VERSION = 1
BUSY_SECONDS = 15.0
REMAKE = (
    "Move it away (with the folder {name}.segments beside it) and run `kogata index PATH…` again; "
    "your documents are not touched."
)

TABLES = """
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

CREATE TABLE folders (
    id      INTEGER PRIMARY KEY,
    path    BLOB NOT NULL UNIQUE,          -- absolute; may be a single file
    exclude TEXT NOT NULL DEFAULT '[]',    -- JSON list of patterns
    missing INTEGER NOT NULL DEFAULT 0,    -- 1: was not there at the last run; its documents are kept
    left_out TEXT NOT NULL DEFAULT '{}'    -- JSON: how many files were left out on purpose, by reason
);

CREATE TABLE forgotten (path BLOB PRIMARY KEY) WITHOUT ROWID;   -- inside a known folder, to be left out

-- AUTOINCREMENT: ids are never used again, so that an id in a segment always means the same chunk.
CREATE TABLE documents (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    path     BLOB NOT NULL UNIQUE,
    folder   INTEGER NOT NULL REFERENCES folders(id) ON DELETE CASCADE,
    kind     TEXT NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    hash     BLOB,                         -- blake2b-128 of the bytes; NULL where they could not be read
    parser   INTEGER NOT NULL,             -- version of the parsers that read it
    read_ns  INTEGER NOT NULL,             -- when, in ns since the epoch
    code     TEXT,                         -- NULL: searchable; else why not (Refusal.code)
    reason   TEXT,                         -- the same as a sentence; with code NULL: a remark
    title    TEXT NOT NULL DEFAULT '',
    encoding TEXT,
    n_pages  INTEGER,
    n_chars  INTEGER NOT NULL DEFAULT 0,
    n_chunks INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX documents_folder ON documents(folder);
CREATE INDEX documents_hash ON documents(hash);

CREATE TABLE texts (                       -- parsed text in parts of PART characters, each zlib of UTF-8
    document INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
    part     INTEGER NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (document, part)
) WITHOUT ROWID;

CREATE TABLE chunks (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
    start    INTEGER NOT NULL,             -- character offsets into the document's text
    end      INTEGER NOT NULL,
    page     INTEGER,
    heading  TEXT NOT NULL DEFAULT '',     -- path of headings, joined by U+001F
    n_tokens INTEGER NOT NULL,
    coverage REAL NOT NULL,                -- share of the text that the embedder's tokenizer knows
    meaning  INTEGER NOT NULL              -- 0: words only (coverage too low), 1: vector to come, 2: has a vector
);
CREATE INDEX chunks_document ON chunks(document);
CREATE INDEX chunks_waiting ON chunks(id) WHERE meaning = 1;

CREATE TABLE vectors (                     -- seq only grows: up to meta 'covered' in segments, the rest is the tail
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    chunk  INTEGER NOT NULL UNIQUE REFERENCES chunks(id) ON DELETE CASCADE,
    vector BLOB NOT NULL                   -- float16, little-endian, normalised, all dimensions
);

CREATE TABLE segments (                    -- the files in <index>.segments that count (vectors.SegmentRecord)
    name       TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    checksum   TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE tombstones (chunk INTEGER PRIMARY KEY);   -- chunks that are in a segment and no longer in the index
"""


def default_path() -> Path:
    """Where the index is when nobody says otherwise: ``$KOGATA_INDEX`` or the user's data directory."""
    named = os.environ.get("KOGATA_INDEX")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("kogata", appauthor=False) / "index.sqlite"


def resolve(path: str | os.PathLike[str] | None) -> Path:
    """The index file meant by ``path`` (None: :func:`default_path`), absolute.

    Raises:
        BadInput: ``path`` is a folder or empty.
    """
    if path is not None and not os.fspath(path):
        raise BadInput("The index needs a file name, and an empty one was given.")
    chosen = default_path() if path is None else Path(path).expanduser()
    chosen = Path(os.path.abspath(chosen))
    if chosen.is_dir():
        hint = "Name a file, for example index.sqlite."
        raise BadInput(f"{shown(chosen)} is a folder; the index is a file.", hint=hint)
    return chosen


def shown(path: bytes | str | os.PathLike[str]) -> str:
    """A path as text that any terminal and JSON takes: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def no_index(path: Path) -> StoreError:
    return StoreError(f"There is no index at {shown(path)} yet.", hint="Make one with `kogata index PATH…`.")


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def belongs_to(index: Path, path: bytes) -> bool:
    """Whether a path is the index file or one of those beside it: never a document."""
    own = os.fsencode(index)
    beside_it = (b"", b"-wal", b"-shm", b"-journal", b".lock", b".segments")
    return path.startswith(own) and path[len(own) :].split(os.fsencode(os.sep))[0] in beside_it


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn sqlite3's errors into ours, with what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise explain(path, error) from error


def explain(path: Path, error: sqlite3.DatabaseError) -> StoreError:
    """The :class:`StoreError` that says what ``error`` means for the person at the terminal."""
    name = getattr(error, "sqlite_errorname", "") or ""
    place = shown(path)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        what = "is not an index" if name == "SQLITE_NOTADB" else "is damaged or cut short"
        return DamagedIndexError(f"{place} {what}.", hint=REMAKE.format(name=shown(path.name)))
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return full_disk(path)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LockedError(f"{place} is in use by another program.", hint="Try again when it has finished.")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return StoreError(f"{place} cannot be opened for this: no permission, or its folder is missing or read-only.")
    return StoreError(f"The index {place} could not be used: {error}.")


def full_disk(path: Path) -> StoreError:
    return StoreError(
        f"The disk is full or cannot be written: {shown(path)} did not take the change, and keeps what it held before.",
        hint="Make room (or name another place with --index), then run the same command again: it carries on.",
    )


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open and check the index file; bring an older one up to date; make a new one when ``write``.

    Args:
        path: The file, from :func:`resolve`.
        write: Open for writing. The caller holds the lock.

    Raises:
        StoreError: There is no such file (reading), or it cannot be opened.
        DamagedIndexError: It is cut short, or not an index.
        NewerIndexError: A later version of Kogata wrote it.
    """
    if write:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The folder {shown(path.parent)} cannot be made: {error.strerror}.") from error
    elif not path.exists():
        raise no_index(path)
    connection: sqlite3.Connection
    with plain_errors(path):
        existed = path.exists()
        with _opening:
            if existed and not _is_open(path) and _is_cut_short(path):
                raise DamagedIndexError(f"{shown(path)} is cut short.", hint=REMAKE.format(name=shown(path.name)))
            opened = connection = _open(path, write=write)
            _connections.setdefault(_identity(path), weakref.WeakSet()).add(opened)
        try:
            version = _check(connection, path, existed)
            _configure(connection, write=write)
            if version < VERSION:
                if not write:
                    connection.close()
                    connection = _upgraded(path)
                else:
                    _migrate(connection, path, version)
        except BaseException:
            connection.close()
            raise
        return connection


class _Connection(sqlite3.Connection):
    """One that can be referred to weakly."""


_opening = threading.Lock()
_connections: dict[tuple[int, int], weakref.WeakSet[_Connection]] = {}
"""This process's connections, by device and inode of their files."""


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_open(path: Path) -> bool:
    """Whether this process has the file open through SQLite: then nothing else of it may open and close the file.

    POSIX drops all locks of a process on a file when any descriptor of the file is closed, SQLite's among them
    (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    return bool(_connections.get(_identity(path)))


def _is_cut_short(path: Path) -> bool:
    """Whether the file is smaller than its header says (SQLite notices only when it reads what is not there).

    Only for a file that this process has not open, see :func:`_is_open`. Header: https://www.sqlite.org/fileformat2.html#the_database_header
    """
    try:
        with open(path, "rb") as file:
            header = file.read(100)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StoreError(f"{shown(path)} cannot be opened: {error.strerror}.") from error
    if not header.startswith(b"SQLite format 3\0"[: len(header)]):
        return 0 < size < 512  # SQLite takes so short a file for an empty one; what is longer it refuses itself
    if len(header) < 100:
        return bool(header)
    changes, pages, valid_for = (int.from_bytes(header[at : at + 4], "big") for at in (24, 28, 92))
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    wal = beside(path, "-wal")
    with_log = wal.exists() and wal.stat().st_size > 0  # pages may still be in there
    return changes == valid_for and pages * page_size > size and not with_log


def _open(path: Path, *, write: bool) -> _Connection:
    if write:
        connection = _plain_open(path, "rwc")
        connection.execute("PRAGMA schema_version")  # opens the file, which is there from here on
        return connection
    # A reader in a folder it may not write cannot make the shared-memory file that WAL needs. Where no writer has left
    # anything unmerged, the file can be read as it is.
    connection = _plain_open(path, "ro")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        wal = beside(path, "-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        connection = _plain_open(path, "ro&immutable=1")
    return connection


def _configure(connection: sqlite3.Connection, *, write: bool) -> None:
    if not write:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -16384")
        return
    if not connection.execute("PRAGMA page_count").fetchone()[0]:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA cache_size = -32768")


def _plain_open(path: Path, mode: str) -> _Connection:
    uri = f"file:{quote(os.fsencode(path))}?mode={mode}"
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
    )


def _check(connection: sqlite3.Connection, path: Path, existed: bool) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and not (application == 0 and version == 0 and empty):
        raise DamagedIndexError(f"{shown(path)} is an SQLite file of another program, not an index of Kogata.")
    if version > VERSION:
        raise NewerIndexError(
            f"{shown(path)} was written by a later Kogata (index version {version}; this one knows up to {VERSION}).",
            hint="Update Kogata, or name another index file with --index.",
        )
    if version == 0 and existed and beside(path, ".segments").exists():
        raise DamagedIndexError(f"{shown(path)} has lost its contents.", hint=REMAKE.format(name=shown(path.name)))
    return version


def _upgraded(path: Path) -> sqlite3.Connection:
    """A reader's way to an up-to-date file: upgrade it under the writer's lock, then open it for reading."""
    from kogata.ask.store.lock import WriterLock

    try:
        with WriterLock(path):
            connect(path, write=True).close()
    except (NewerIndexError, DamagedIndexError, LockedError):
        raise
    except StoreError as error:
        raise StoreError(
            f"{shown(path)} was made by an older Kogata and has to be brought up to date, which failed: {error}",
            hint="Run any kogata command once as a user who may write it.",
        ) from error
    return connect(path, write=False)


def _migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Run the steps from ``version`` to :data:`VERSION` in one transaction: all of them or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in range(version, VERSION):
            MIGRATIONS[step](connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run several statements inside the open transaction (``executescript`` would commit it)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _create(connection: sqlite3.Connection) -> None:
    run_script(connection, TABLES)
    create_words(connection)


WORDS_STRUCTURE = 10
"""The row of ``words_data`` that lists the pieces of the word index (SQLite, "FTS5 extension", structure record)."""


def words_readable(connection: sqlite3.Connection) -> bool:
    """Whether the word index can be searched."""
    try:
        connection.execute("SELECT rowid FROM words WHERE words MATCH 'kogata' LIMIT 1").fetchall()
    except sqlite3.DatabaseError as error:
        if (getattr(error, "sqlite_errorname", "") or "").startswith("SQLITE_CORRUPT"):
            return False
        raise
    return True


def word_levels(connection: sqlite3.Connection) -> int:
    """Levels of pieces in the word index."""
    row = connection.execute("SELECT block FROM words_data WHERE id = ?", (WORDS_STRUCTURE,)).fetchone()
    if row is None:
        return 0
    block = bytes(row[0])[4:]
    block = block.removeprefix(b"\xff\x00\x00\x01")  # as of SQLite 3.43 a mark of the format may stand before
    levels = 0
    for byte in block[:9]:  # a number in groups of 7 bits, the highest first
        levels = levels << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return levels


def create_words(connection: sqlite3.Connection) -> None:
    """Make the empty word index, and note the rule its rows are made by.

    Contentless (``content=''``): the text is in ``texts`` already, and a second copy would more than double the
    table. To take a row out, FTS5 must be told what was put in, which is computed again from the stored text. Should
    that rule ever change, :meth:`.writer.Writer.open` sees another fingerprint and makes the table anew.
    """
    from kogata.ask.words import fts

    try:
        connection.execute("DROP TABLE IF EXISTS words")
    except sqlite3.DatabaseError as error:
        if not (getattr(error, "sqlite_errorname", "") or "").startswith("SQLITE_CORRUPT"):
            raise
        # FTS5 opens a table before it drops it, which a damaged list of its pieces prevents: an empty list will do.
        connection.execute("UPDATE words_data SET block = zeroblob(7) WHERE id = ?", (WORDS_STRUCTURE,))
        connection.execute("DROP TABLE words")
    columns = ", ".join(fts.COLUMNS)
    connection.execute(f"CREATE VIRTUAL TABLE words USING fts5({columns}, content='', tokenize='{fts.TOKENIZE}')")
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('words', ?)", (words_fingerprint(),))


def words_fingerprint() -> str:
    """Changes whenever what goes into the word index changes."""
    import hashlib
    import unicodedata

    from kogata.ask.words import fts

    probe = "NSA reads 11.6× less: std::vector, getUserName, HTTPServer2, 1,204 C++ files. 潮位の変化、人々、ﾃｽﾄ。"
    tables = unicodedata.unidata_version  # what is a letter, and what is folded, differs between them
    rule = repr((tables, fts.COLUMNS, fts.TOKENIZE, fts.index_fields(probe, "潮位 tide", ("Naïve", "章"))))
    return hashlib.blake2b(rule.encode(), digest_size=16).hexdigest()


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {0: _create}
"""From version n to n + 1. Version 0 is an empty file."""
