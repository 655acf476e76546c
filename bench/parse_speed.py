"""How many documents, and how much text, one worker parses a second, by format; beside it pypdf on the same PDFs.

    python bench/parse_speed.py

Documents are the fixtures of tests/, each parsed again and again through a pool of one worker (so the pipe is counted).
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

from _facts import write
from kogata.ask.documents import Document, ParserPool, chunk, sentences

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "documents"
ROUNDS = 5
REPEATS = 20


def words(texts: list[str]) -> list[int]:
    """A stand-in for a tokenizer: the cost of chunking itself is wanted."""
    return [len(text) // 3 for text in texts]


def main() -> None:
    rows: list[dict[str, Any]] = []
    with ParserPool(1) as pool:
        for path in sorted(FIXTURES.glob("*.*")):
            seconds, characters = [], 0
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                for _, outcome in pool.parse_many((n, path) for n in range(REPEATS)):
                    assert isinstance(outcome, Document)
                    document = outcome
                seconds.append((time.perf_counter() - begin) / REPEATS)
            characters = len(document.text)
            begin = time.perf_counter()
            for _ in range(REPEATS):
                chunk(document, words)
            chunking = (time.perf_counter() - begin) / REPEATS
            begin = time.perf_counter()
            for _ in range(REPEATS):
                sentences(document.text)
            cutting = (time.perf_counter() - begin) / REPEATS
            rows.append(
                {
                    "file": path.name, "characters": characters, "pages": document.n_pages,
                    "documents_per_s": 1 / median(seconds), "characters_per_s": characters / median(seconds),
                    "chunk_ms": chunking * 1e3, "sentences_ms": cutting * 1e3, "pypdf_documents_per_s": _pypdf(path),
                }
            )  # fmt: skip
    print(
        f"{'file':18}{'characters':>11}{'docs/s':>9}{'Mchar/s':>9}{'chunk ms':>10}{'sentences ms':>14}{'pypdf/s':>10}"
    )
    for row in rows:
        other = f"{row['pypdf_documents_per_s']:.1f}" if row["pypdf_documents_per_s"] else ""
        print(
            f"{row['file']:18}{row['characters']:11,}{row['documents_per_s']:9.0f}{row['characters_per_s'] / 1e6:9.2f}"
            f"{row['chunk_ms']:10.2f}{row['sentences_ms']:14.2f}{other:>10}"
        )
    write("parse_speed", {"rows": rows})


def _pypdf(path: Path) -> float | None:
    if path.suffix != ".pdf":
        return None
    try:
        import pypdf
    except ImportError:
        return None
    begin = time.perf_counter()
    for _ in range(3):
        for page in pypdf.PdfReader(path).pages:
            page.extract_text()
    return 3 / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
