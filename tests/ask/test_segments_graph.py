"""The HNSW graph above a million rows, with the limit lowered: used when there, not trusted when damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kogata.ask.vectors import SegmentFolder, SegmentRecord, VectorSet, graph
from kogata.ask.vectors import folder as folder_module
from kogata.ask.vectors import search as search_module

pytest.importorskip("usearch.index")
NONE = np.empty(0, np.int64)
ROWS, D = 3000, 48


@pytest.fixture(autouse=True)
def low_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(graph, "MIN_ROWS", 1000)
    monkeypatch.setattr(graph, "SHORTLIST", 200)
    monkeypatch.setattr(folder_module, "EXACT_ROWS", 500)
    monkeypatch.setattr(search_module, "EXACT_ROWS", 500)
    monkeypatch.setattr(search_module, "SHORTLIST", 200)
    monkeypatch.setattr(search_module, "SHORTLIST_PER_RESULT", 1)
    yield
    graph.opened.cache_clear()


@pytest.fixture(scope="module")
def vectors_ND() -> NDArray[np.float32]:
    """Clusters, as texts about one subject form: a graph finds its way in them."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, D))[rng.integers(0, 60, ROWS)] + 0.5 * rng.standard_normal((ROWS, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def home(tmp_path: Path) -> SegmentFolder:
    return SegmentFolder(tmp_path, "e", D)


def opened(home: SegmentFolder, records: list[SegmentRecord], deleted: NDArray[np.int64] = NONE) -> VectorSet:
    return VectorSet(home.open(records), NONE, np.empty((0, D), np.float16), deleted)


def found(vector_set: VectorSet, vectors_ND: NDArray[np.float32], exact: bool = False) -> list[NDArray[np.int64]]:
    return [vector_set.search(vectors_ND[i], 10, exact=exact)[1] for i in range(0, ROWS, 100)]


def overlap(one: list[NDArray[np.int64]], other: list[NDArray[np.int64]]) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(one, other, strict=True)]))


def scan_is_forbidden(*_: object, **__: object) -> NDArray[np.int64]:
    raise AssertionError("the graph should have made the shortlist")


def test_the_graph_makes_the_shortlist(
    home: SegmentFolder, vectors_ND: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, _ = home.append([], np.arange(ROWS) * 2, vectors_ND, NONE)
    home.build_graphs(records)
    vector_set = opened(home, records, np.arange(0, 2 * ROWS, 8))
    truth = found(vector_set, vectors_ND, exact=True)
    monkeypatch.setattr(search_module, "shortlist", scan_is_forbidden)
    answers = found(vector_set, vectors_ND)
    assert overlap(answers, truth) > 0.97
    assert not np.isin(np.concatenate(answers), np.arange(0, 2 * ROWS, 8)).any()


def test_a_narrow_filter_is_scanned(home: SegmentFolder, vectors_ND: NDArray[np.float32]) -> None:
    records, _ = home.append([], np.arange(ROWS), vectors_ND, NONE)
    home.build_graphs(records)
    allowed = np.arange(0, ROWS, 3)
    vector_set = opened(home, records)
    answers = [vector_set.search(vectors_ND[i], 10, allowed=allowed)[1] for i in range(30)]
    truth = [vector_set.search(vectors_ND[i], 10, allowed=allowed, exact=True)[1] for i in range(30)]
    assert overlap(answers, truth) > 0.97
    assert np.isin(np.concatenate(answers), allowed).all()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "removed"])
def test_a_damaged_graph_is_not_used_and_is_built_again(
    home: SegmentFolder, vectors_ND: NDArray[np.float32], damage: str
) -> None:
    records, _ = home.append([], np.arange(ROWS), vectors_ND, NONE)
    home.build_graphs(records)
    (path,) = home.path.glob("*.hnsw")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes({"flipped": raw, "cut": raw[: len(raw) // 2], "empty": b""}[damage])
    assert home.open(records)[0].graph is None
    vector_set = opened(home, records)
    assert overlap(found(vector_set, vectors_ND), found(vector_set, vectors_ND, exact=True)) > 0.97
    home.build_graphs(records)
    assert home.open(records)[0].graph is not None
    assert len(list(home.path.glob("*.hnsw"))) == 1


def test_graphs_leave_with_their_segment(home: SegmentFolder, vectors_ND: NDArray[np.float32]) -> None:
    records, _ = home.append([], np.arange(ROWS), vectors_ND, NONE)
    home.build_graphs(records)
    home.remove_unlisted(records)
    assert len(list(home.path.glob("*.hnsw"))) == 1
    merged, _ = home.append(records, np.arange(ROWS, 2 * ROWS), vectors_ND, NONE)
    home.remove_unlisted(merged)
    assert list(home.path.glob("*.hnsw")) == []


def test_nothing_is_built_below_the_limit_or_without_usearch(
    home: SegmentFolder, vectors_ND: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, _ = home.append([], np.arange(900), vectors_ND[:900], NONE)
    home.build_graphs(records)
    monkeypatch.setattr(graph, "installed", lambda: False)
    records, _ = home.append(records, np.arange(1000, 1000 + ROWS), vectors_ND, NONE)
    home.build_graphs(records)
    assert list(home.path.glob("*.hnsw")) == []


def test_an_intact_graph_is_read_whole_only_once(
    home: SegmentFolder, vectors_ND: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, _ = home.append([], np.arange(ROWS), vectors_ND, NONE)
    home.build_graphs(records)
    read: list[Path] = []
    crc = graph.file_crc
    monkeypatch.setattr(graph, "file_crc", lambda path: (read.append(path), crc(path))[1])
    for _ in range(3):
        assert home.open(records)[0].graph is not None
    assert len(read) == 1
    home.open(records, verify=True)
    assert len(read) == 2
