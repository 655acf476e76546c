"""Indexing end to end: documents a second, where the time goes, memory and size, for English and Japanese pages.

    python bench/indexing.py [--documents N]

cppdocs as one Markdown file a page; japanese_text as one a title (Wikipedia) or forty paragraphs (manuals). Each
collection is indexed in a process of its own, so that peaks of memory are its own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _facts

PARAGRAPHS_A_FILE = 40


def cppdocs() -> Iterator[tuple[str, str]]:
    """(file name, text) of each page."""
    with gzip.open(_facts.data() / "cppdocs" / "cppdocs.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            page = json.loads(line)
            title = json.dumps(page["title"], ensure_ascii=False)
            folder = f"{number // 500:03}"
            yield f"{folder}/{number:05}.md", f"---\ntitle: {title}\n---\n\n{page['text']}\n"


def japanese() -> Iterator[tuple[str, str]]:
    """(file name, text): Wikipedia passages by title, then manuals."""
    folder = _facts.data() / "japanese_text"
    passages: dict[str, dict[str, None]] = {}
    for row in _rows(folder / "jaquad.jsonl.xz"):
        passages.setdefault(row["title"], {})[row["passage"]] = None
    for number, (title, texts) in enumerate(passages.items()):
        yield f"wikipedia/{number:05}.md", f"# {title}\n\n" + "\n\n".join(texts) + "\n"
    for name in ("php_docs", "ruby_ref", "cppref", "react_docs"):
        rows = (row for row in _rows(folder / f"{name}.jsonl.xz"))
        number = 0
        while group := list(islice(rows, PARAGRAPHS_A_FILE)):
            parts, last = [], ""
            for row in group:
                if row["title"] and row["title"] != last:
                    last = row["title"]
                    parts.append(f"## {last}")
                parts.append(row["text"])
            yield f"{name}/{number:05}.md", "\n\n".join(parts) + "\n"
            number += 1


COLLECTIONS = {"cppdocs": cppdocs, "japanese_text": japanese}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write_sample(name: str, folder: Path, limit: int | None) -> int:
    """Write every n-th document, so that a sample is like the whole; returns how many there are in all."""
    documents = list(COLLECTIONS[name]())
    step = 1 if limit is None else max(1, len(documents) // limit)
    for file, text in documents[::step][:limit]:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return len(documents)


class Children(threading.Thread):
    """Watches the memory of this process's children: the peak of their sum, and of the largest."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_sum = self.peak_one = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.05):
            sizes = [self._megabytes(pid) for pid in self._pids()]
            self.peak_sum = max(self.peak_sum, sum(sizes))
            self.peak_one = max([self.peak_one, *sizes])

    def _pids(self) -> list[str]:
        found: list[str] = []
        for task in Path("/proc/self/task").iterdir():
            try:
                found += (task / "children").read_text().split()
            except OSError:
                continue
        return found

    @staticmethod
    def _megabytes(pid: str) -> float:
        try:
            match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        except OSError:
            return 0.0
        return int(match[1]) / 1024 if match else 0.0


def measure(name: str, limit: int | None) -> dict[str, Any]:
    """Index a collection in this process."""
    import kogata

    with tempfile.TemporaryDirectory(prefix="kogata-bench-") as scratch:
        folder, path = Path(scratch, "docs"), Path(scratch, "index.sqlite")
        of = write_sample(name, folder, limit)
        size = sum(file.stat().st_size for file in folder.rglob("*.md"))
        old = time.time() - 3600  # as files that people index are: not written a moment ago
        for file in folder.rglob("*.md"):
            os.utime(file, (old, old))
        children = Children()
        children.start()
        words_done = [0.0]
        begin = time.perf_counter()

        def progress(event: Any) -> None:
            if event.phase == "reading":
                words_done[0] = time.perf_counter() - begin

        with kogata.Index(path) as index:
            report = index.add(folder, progress=progress)
            seconds = time.perf_counter() - begin
            children.done.set()
            begin = time.perf_counter()
            index.refresh()
            unchanged = time.perf_counter() - begin
            status = index.status()
        return {
            "documents": report.added, "of": of, "skipped": len(report.skipped), "megabytes": size / 1e6,
            "chunks": report.chunks, "embedded": report.embedded, "seconds": seconds, "seconds_words": words_done[0],
            "documents_per_second": report.added / seconds, "words_per_second": report.added / words_done[0],
            "chunks_per_second": report.embedded / max(1e-9, report.seconds.get("embed", 0)),
            "stages": report.seconds, "seconds_unchanged": unchanged,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "peak_mb_workers": children.peak_sum, "peak_mb_worker": children.peak_one,
            "index_mb": status.bytes_index / 1e6, "segments_mb": status.bytes_segments / 1e6,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, help="at most so many of each collection, evenly spaced")
    parser.add_argument("--one", choices=COLLECTIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.documents)))
        return
    _facts.require_native()
    results: dict[str, Any] = {}
    for name in COLLECTIONS:
        command = [sys.executable, __file__, "--one", name]
        command += ["--documents", str(arguments.documents)] if arguments.documents else []
        results[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        show(name, results[name])
    _facts.write("indexing", {"collections": results})


def show(name: str, r: dict[str, Any]) -> None:
    print(f"\n{name}: {r['documents']:,} of {r['of']:,} documents, {r['megabytes']:.1f} MB, {r['chunks']:,} passages")
    print(f"  searchable by words after  {r['seconds_words']:8.1f} s   {r['words_per_second']:8.1f} documents/s")
    print(f"  and by meaning after       {r['seconds']:8.1f} s   {r['documents_per_second']:8.1f} documents/s")
    print(f"  nothing changed            {r['seconds_unchanged']:8.2f} s")
    whole = sum(r["stages"].values())
    for stage, seconds in sorted(r["stages"].items(), key=lambda item: -item[1]):
        print(f"    {stage:<10} {seconds:8.2f} s  {seconds / whole:6.1%}")
    print(f"  memory: {r['peak_mb']:.0f} MB, parsers {r['peak_mb_workers']:.0f} MB (one {r['peak_mb_worker']:.0f} MB)")
    print(f"  index {r['index_mb']:.1f} MB, segments {r['segments_mb']:.1f} MB, documents {r['megabytes']:.1f} MB")


if __name__ == "__main__":
    main()
