"""Finding the files of a folder, leaving out what nobody means: hidden files, version control, caches, ignored files.

Paths are bytes throughout: a name may hold a line end or bytes that are no UTF-8.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kogata.ask.documents import filetype
from kogata.errors import BadInput

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

SkipCode = Literal[
    "hidden", "left_out", "ignored", "excluded", "binary", "unreadable", "link", "loop", "special", "empty"
]

_LEFT_OUT = {
    b"node_modules": "installed packages", b"bower_components": "installed packages", b"__pycache__": "a cache",
    b"CVS": "version control", b"_darcs": "version control", b"__MACOSX": "a system folder",
    b"$RECYCLE.BIN": "a system folder", b"System Volume Information": "a system folder",
}  # fmt: skip
_VERSION_CONTROL = frozenset((b".git", b".hg", b".svn", b".bzr", b".jj", b"CVS", b"_darcs"))
_CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"


@dataclass(frozen=True, slots=True)
class Found:
    """A file to be read. ``kind_guess`` is by its name alone; None where that says nothing."""

    path: bytes
    size: int
    mtime_ns: int
    kind_guess: str | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is not read, and why (a word for programs, a sentence for people)."""

    path: bytes
    code: SkipCode
    reason: str


@dataclass(frozen=True, slots=True)
class _Rules:
    """Patterns of one .gitignore, for paths below ``base``."""

    base: bytes
    spec: GitIgnoreSpec


class Discovery:
    """What is to be read below some paths: iterate it, as often as you like; each time the disk is looked at anew."""

    def __init__(self, roots: Sequence[bytes], exclude: Sequence[str]) -> None:
        self.roots = tuple(roots)
        self._exclude = _spec(exclude) if exclude else None

    def count(self) -> tuple[int, int]:
        """(files, bytes) to be read, without opening any of them."""
        files = total = 0
        for item in self:
            if isinstance(item, Found):
                files += 1
                total += item.size
        return files, total

    def __iter__(self) -> Iterator[Found | Skipped]:
        seen: set[tuple[int, int]] = set()
        links: list[bytes] = []
        for root in self.roots:
            if os.path.isdir(root):
                yield from self._walk(root, seen, links)
            else:
                yield from _explicit(root, seen)
        # Links come last, so that a file is known by its own path wherever it is below the roots too.
        for link in links:
            yield from _linked(link, seen)

    def _walk(self, root: bytes, seen: set[tuple[int, int]], links: list[bytes]) -> Iterator[Found | Skipped]:
        stack: list[tuple[bytes, tuple[_Rules, ...]]] = [(root, _rules_above(root))]
        while stack:
            folder, rules = stack.pop()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in seen:
                    continue  # the same folder twice, by overlapping roots
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                yield Skipped(folder, "unreadable", _why(error, "folder"))
                continue
            names = {entry.name for entry in entries}
            if b".git" in names and folder != root:
                rules = ()  # a repository of its own: the one around it has no say
            rules = (*rules, *_rules_of(folder, names))
            folders: list[tuple[bytes, tuple[_Rules, ...]]] = []
            for entry in entries:
                if entry.is_symlink():
                    skipped = self._left_out(entry, root, rules, is_folder=False)
                    if skipped is not None:
                        yield skipped
                    else:
                        links.append(entry.path)
                    continue
                try:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    skipped = self._left_out(entry, root, rules, is_folder=is_folder)
                    if skipped is not None:
                        yield skipped
                    elif is_folder:
                        folders.append((entry.path, rules))
                    else:
                        yield from _file(entry.path, entry.stat(follow_symlinks=False), seen)
                except OSError as error:
                    yield Skipped(entry.path, "unreadable", _why(error, "file"))
            stack.extend(reversed(folders))

    def _left_out(
        self, entry: os.DirEntry[bytes], root: bytes, rules: tuple[_Rules, ...], *, is_folder: bool
    ) -> Skipped | None:
        name, path = entry.name, entry.path
        if name in _VERSION_CONTROL:
            return Skipped(path, "left_out", "It belongs to version control.")
        if name.startswith(b"."):
            return Skipped(path, "hidden", "It is hidden (its name begins with a dot).")
        if name.startswith(b"~$") or name.endswith((b"~", b".part", b".crdownload")):
            return Skipped(path, "left_out", "It is a temporary file.")
        if is_folder and (what := _folder_left_out(name, path)):
            return Skipped(path, "left_out", f"It is {what}.")
        if self._exclude is not None and _matches(self._exclude, root, path, is_folder):
            return Skipped(path, "excluded", "It matches --exclude.")
        for rule in reversed(rules):  # the deepest .gitignore that says anything decides
            verdict = _matches(rule.spec, rule.base, path, is_folder)
            if verdict is not None:
                return Skipped(path, "ignored", "It is ignored by .gitignore.") if verdict else None
        return None


def discover(paths: Iterable[bytes | str | os.PathLike[str]], exclude: Sequence[str] = ()) -> Discovery:
    """Find documents.

    A file named here is always taken; below a folder, hidden files, version-control folders, node_modules, virtual
    environments, caches and what .gitignore files name are left out. Links to files are followed, links to folders are
    reported (name the folder itself to have it read).

    Args:
        paths: Files and folders.
        exclude: More patterns to leave out, in .gitignore's syntax, relative to each folder given.

    Raises:
        BadInput: a path that is not there, or a pattern that is none.
    """
    roots: list[bytes] = []
    for given in paths:
        path = os.path.abspath(os.path.expanduser(os.fsencode(given)))
        try:
            os.lstat(path)
        except (OSError, ValueError) as error:
            shown = path.decode("utf-8", "replace")
            why = "there is no such file or folder" if isinstance(error, FileNotFoundError) else str(error)
            raise BadInput(f"{shown}: {why}.", hint="Name a file or a folder.") from None
        if path not in roots:
            roots.append(path)
    return Discovery(roots, exclude)


def _explicit(path: bytes, seen: set[tuple[int, int]]) -> Iterator[Found | Skipped]:
    try:
        yield from _file(path, os.stat(path), seen)
    except OSError as error:
        yield Skipped(path, "loop" if _is_loop(error) else "unreadable", _why(error, "file"))


def _linked(path: bytes, seen: set[tuple[int, int]]) -> Iterator[Found | Skipped]:
    try:
        status = os.stat(path)
    except OSError as error:
        code: SkipCode = "loop" if _is_loop(error) else "unreadable"
        reason = "It is a link that leads nowhere." if isinstance(error, FileNotFoundError) else _why(error, "link")
        yield Skipped(path, code, reason)
        return
    if stat.S_ISDIR(status.st_mode):
        real = os.path.realpath(path)
        if (path + b"/").startswith(real.rstrip(b"/") + b"/"):
            yield Skipped(path, "loop", "It is a link to a folder that it is in.")
        elif (status.st_dev, status.st_ino) in seen:
            yield Skipped(path, "link", "It is a link to a folder that is read anyway.")
        else:
            yield Skipped(path, "link", "It is a link to a folder elsewhere; name that folder to have it read.")
    elif (status.st_dev, status.st_ino) in seen:
        yield Skipped(path, "link", "It is a link to a file that is read anyway.")
    else:
        yield from _file(path, status, seen)


def _file(path: bytes, status: os.stat_result, seen: set[tuple[int, int]]) -> Iterator[Found | Skipped]:
    if not stat.S_ISREG(status.st_mode):
        yield Skipped(path, "special", "It is not a regular file (a socket, pipe or device).")
        return
    seen.add((status.st_dev, status.st_ino))
    guess = filetype.by_name(path)
    if guess == "binary":
        yield Skipped(path, "binary", "Files with this suffix (compressed, picture, sound, program …) are not read.")
    elif status.st_size == 0:
        yield Skipped(path, "empty", "The file is empty.")
    else:
        yield Found(path, status.st_size, status.st_mtime_ns, guess)


def _is_loop(error: OSError) -> bool:
    import errno

    return error.errno == errno.ELOOP


def _why(error: OSError, what: str) -> str:
    if isinstance(error, PermissionError):
        return f"There is no permission to read this {what}."
    if _is_loop(error):
        return "It is a link that leads back to itself."
    if isinstance(error, FileNotFoundError):
        return "It is no longer there."
    return f"This {what} cannot be read: {error.strerror or error}."


def _folder_left_out(name: bytes, path: bytes) -> str | None:
    if name in _LEFT_OUT:
        return _LEFT_OUT[name]
    if os.path.exists(os.path.join(path, b"pyvenv.cfg")) or os.path.isdir(os.path.join(path, b"conda-meta")):
        return "a virtual environment"
    try:
        with open(os.path.join(path, b"CACHEDIR.TAG"), "rb") as tag:
            return "a cache" if tag.read(len(_CACHE_TAG)) == _CACHE_TAG else None
    except OSError:
        return None


def _spec(patterns: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    patterns = list(patterns)
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise BadInput(
            f"A pattern to exclude is not one: {error}", hint="Patterns are like '*.log' or 'drafts/'."
        ) from None


def _rules_of(folder: bytes, names: set[bytes]) -> tuple[_Rules, ...]:
    rules = []
    if b".git" in names and (spec := _read_rules(os.path.join(folder, b".git", b"info", b"exclude"))):
        rules.append(_Rules(folder, spec))
    if b".gitignore" in names and (spec := _read_rules(os.path.join(folder, b".gitignore"))):
        rules.append(_Rules(folder, spec))
    return tuple(rules)


def _rules_above(root: bytes) -> tuple[_Rules, ...]:
    """The .gitignore files between the repository a folder is in and the folder, outermost first."""
    above: list[tuple[_Rules, ...]] = []
    folder = root
    if os.path.exists(os.path.join(root, b".git")):
        return ()
    while (parent := os.path.dirname(folder)) != folder:
        folder = parent
        names = {n for n in (b".git", b".gitignore") if os.path.exists(os.path.join(folder, n))}
        above.append(_rules_of(folder, names))
        if b".git" in names:
            return tuple(rule for rules in reversed(above) for rule in rules)
    return ()  # not in a repository: what lies above the folder given is nobody's business


def _read_rules(path: bytes) -> GitIgnoreSpec | None:
    try:
        with open(path, "rb") as file:
            lines = file.read(1 << 20).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    try:
        return _spec(lines) if lines else None
    except BadInput:
        return _spec(good) if (good := [line for line in lines if _is_pattern(line)]) else None


def _is_pattern(line: str) -> bool:
    try:
        _spec([line])
    except BadInput:
        return False
    return True


def _matches(spec: GitIgnoreSpec, base: bytes, path: bytes, is_folder: bool) -> bool | None:
    """True: left out; False: taken by a negated pattern; None: nothing said."""
    relative = os.fsdecode(path[len(base) :].lstrip(b"/"))
    if os.sep != "/":
        relative = relative.replace(os.sep, "/")
    return spec.check_file(relative + "/" if is_folder else relative).include
