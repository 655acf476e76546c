"""Vector segments: search against exact float64, every kind of damage, merging, tombstones, crashes in between."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kogata.ask.vectors import SegmentFolder, SegmentRecord, VectorSet, segment
from kogata.ask.vectors import folder as folder_module
from kogata.ask.vectors import search as search_module
from kogata.errors import BadInput, DamagedIndexError

NONE = np.empty(0, np.int64)


def unit(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    vectors_ND = rng.standard_normal((n, d)).astype(np.float32)
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def clustered(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    """Vectors with a falling spectrum and a common direction, as text embeddings have."""
    scale_D = (1 + np.arange(d)) ** -0.6
    basis_DD = np.linalg.qr(rng.standard_normal((d, d)))[0]
    vectors_ND = (rng.standard_normal((n, d)) * scale_D + 0.5 * scale_D[0]) @ basis_DD
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float32)


def truth(
    q_D: NDArray[np.float32], ids: NDArray[np.int64], vectors_ND: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Exact float64 inner products of the f16-rounded vectors, best first, ties by lowest id."""
    scores_N = vectors_ND.astype(np.float16).astype(np.float64) @ q_D.astype(np.float64)
    order = np.lexsort((ids, -scores_N))[:k]
    return scores_N[order], ids[order]


def same(
    found: tuple[NDArray[np.float32], NDArray[np.int64]], wanted: tuple[NDArray[np.float64], NDArray[np.int64]]
) -> None:
    """Equal scores, and equal ids except where two scores are closer than f32 can tell."""
    np.testing.assert_allclose(found[0], wanted[0], atol=2e-6)
    differing = found[1] != wanted[1]
    assert len(set(found[1].tolist())) == len(found[1])
    if differing.any():
        gaps = np.abs(np.subtract.outer(wanted[0], wanted[0])) + np.eye(len(wanted[0]))
        assert (gaps.min(axis=1)[differing] < 4e-6).all() or differing.argmax() == len(differing) - 1


@pytest.fixture
def home(tmp_path: Path) -> SegmentFolder:
    return SegmentFolder(tmp_path / "index.segments", "embedder-1", 24)


def only(home: SegmentFolder, records: list[SegmentRecord], deleted: NDArray[np.int64] = NONE) -> VectorSet:
    return VectorSet(home.open(records), NONE, np.empty((0, home.dimensions), np.float16), deleted)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    n=st.integers(0, 90),
    d=st.sampled_from([1, 2, 7, 24, 65, 2048]),
    k=st.integers(1, 100),
    exact=st.booleans(),
)
def test_equals_exact_search(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, n: int, d: int, k: int, exact: bool
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    home = SegmentFolder(tmp_path_factory.mktemp("s"), "e", d)
    ids, vectors_ND = rng.permutation(1000)[:n].astype(np.int64), unit(rng, n, d)
    cut, cut2 = sorted(rng.integers(0, n + 1, 2))
    records: list[SegmentRecord] = []
    for part in (slice(0, cut), slice(cut, cut2)):
        records, _ = home.append(records, ids[part], vectors_ND[part], NONE)
    in_segments = ids[:cut2]
    deleted = in_segments[rng.random(len(in_segments)) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))]
    vector_set = VectorSet(home.open(records), ids[cut2:], vectors_ND[cut2:], deleted)
    allowed = data.draw(st.sampled_from([None, "some", "none"]))
    allowed_ids = None if allowed is None else rng.permutation(1000)[:500] if allowed == "some" else NONE
    alive = ~np.isin(ids, deleted)
    assert vector_set.n == alive.sum()
    if allowed_ids is not None:
        alive &= np.isin(ids, allowed_ids)
    q_D = unit(rng, 1, d)[0]
    same(vector_set.search(q_D, k, exact=exact, allowed=allowed_ids), truth(q_D, ids[alive], vectors_ND[alive], k))


def test_adaptive_search_finds_what_exact_search_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "SHORTLIST", 400)
    monkeypatch.setattr(search_module, "SHORTLIST_PER_RESULT", 1)
    rng = np.random.default_rng(5)
    home = SegmentFolder(tmp_path, "e", 384)
    vectors_ND, queries_QD = np.split(clustered(rng, 20_040, 384), [20_000])
    ids = np.arange(20_000, dtype=np.int64) * 3
    records, _ = home.append([], ids, vectors_ND, NONE)
    deleted = ids[::7]
    vector_set = only(home, records, deleted)
    hits = 0
    for q_D in queries_QD:
        exact_scores, exact_ids = vector_set.search(q_D, 10, exact=True)
        scores, found = vector_set.search(q_D, 10)
        hits += len(np.intersect1d(found, exact_ids))
        shared = np.isin(found, exact_ids)
        np.testing.assert_array_equal(scores[shared], exact_scores[np.isin(exact_ids, found)])
        assert not np.isin(found, deleted).any()
    assert hits >= 0.99 * 400


def test_shortlist_is_really_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a shortlist that cannot hold the answer the answer is missed: the test above does not pass by scanning
    everything.
    """
    monkeypatch.setattr(search_module, "SHORTLIST", 1)
    monkeypatch.setattr(search_module, "SHORTLIST_PER_RESULT", 1)
    rng = np.random.default_rng(5)
    vectors_ND = unit(rng, 20_000, 384)
    home = SegmentFolder(tmp_path, "e", 384)
    records, _ = home.append([], np.arange(20_000), vectors_ND, NONE)
    vector_set = only(home, records)
    queries = unit(rng, 20, 384)
    missed = [vector_set.search(q, 1)[1][0] != vector_set.search(q, 1, exact=True)[1][0] for q in queries]
    assert any(missed)


@pytest.mark.parametrize("d", [1, 3, 200, 700])
def test_prefix_of_any_dimension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, d: int) -> None:
    monkeypatch.setattr(folder_module, "EXACT_ROWS", 50)
    monkeypatch.setattr(search_module, "EXACT_ROWS", 50)
    monkeypatch.setattr(search_module, "SHORTLIST", 100)
    rng = np.random.default_rng(d)
    home = SegmentFolder(tmp_path, "e", d)
    vectors_ND = clustered(rng, 500, d)
    records, _ = home.append([], np.arange(500), vectors_ND, NONE)
    scores, ids = only(home, records).search(vectors_ND[17], 3)
    wanted = only(home, records).search(vectors_ND[17], 3, exact=True)
    assert scores[0] == wanted[0][0]
    assert len(ids) == 3


def test_all_equal_vectors_come_by_lowest_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "EXACT_ROWS", 50)
    monkeypatch.setattr(search_module, "EXACT_ROWS", 50)
    monkeypatch.setattr(search_module, "SHORTLIST", 100)
    home = SegmentFolder(tmp_path, "e", 24)
    records, _ = home.append([], np.arange(1000)[::-1], np.full((1000, 24), 0.2, np.float32), NONE)
    assert only(home, records).search(np.ones(24), 5)[1].tolist() == [0, 1, 2, 3, 4]


def test_scores_of_given_ids(home: SegmentFolder) -> None:
    rng = np.random.default_rng(1)
    vectors_ND = unit(rng, 60, 24)
    ids = np.arange(60, dtype=np.int64) + 100
    records, _ = home.append([], ids[:50], vectors_ND[:50], NONE)
    vector_set = VectorSet(home.open(records), ids[50:], vectors_ND[50:], ids[:5])
    wanted = np.array([155, 3, 149, 102, 149], np.int64)
    scores = vector_set.scores(vectors_ND[0], wanted)
    expected = vectors_ND.astype(np.float16).astype(np.float64) @ vectors_ND[0].astype(np.float64)
    np.testing.assert_allclose(scores[[0, 2, 4]], expected[[55, 49, 49]], atol=1e-6)
    assert np.isnan(scores[[1, 3]]).all()
    assert len(vector_set.scores(vectors_ND[0], NONE)) == 0


def test_bad_queries(home: SegmentFolder) -> None:
    records, _ = home.append([], np.arange(5), unit(np.random.default_rng(0), 5, 24), NONE)
    vector_set = only(home, records)
    with pytest.raises(BadInput, match="at least 1"):
        vector_set.search(np.ones(24), 0)
    with pytest.raises(BadInput, match="finite"):
        vector_set.search(np.full(24, np.nan), 3)
    with pytest.raises(BadInput, match="24 numbers"):
        vector_set.search(np.ones(23), 3)
    assert len(vector_set.search(np.ones(24), 10**9)[0]) == 5
    assert len(VectorSet((), NONE, np.empty((0, 0), np.float16), NONE).search(np.ones(24), 3)[0]) == 0


def test_merging_is_geometric_and_drops_deleted_rows(home: SegmentFolder) -> None:
    rng = np.random.default_rng(2)
    records: list[SegmentRecord] = []
    tombstones, copied = NONE, 0
    vectors_ND = unit(rng, 3200, 24)
    for start in range(0, 3200, 100):
        before = {record.name for record in records}
        dead = np.append(tombstones, start - 50) if start else tombstones
        records, tombstones = home.append(records, np.arange(start, start + 100), vectors_ND[start : start + 100], dead)
        home.remove_unlisted(records)
        copied += sum(record.n for record in records if record.name not in before)
        assert len(records) <= 7
        assert {path.name for path in home.path.glob("*.seg")} == {record.name for record in records}
    alive = np.setdiff1d(np.arange(3200), np.arange(50, 3150, 100))
    assert copied < 3200 * 7
    vector_set = only(home, records, tombstones)
    assert vector_set.n == len(alive)
    q_D = unit(rng, 1, 24)[0]
    same(vector_set.search(q_D, 50), truth(q_D, alive, vectors_ND[alive], 50))


def test_everything_deleted(home: SegmentFolder) -> None:
    records, _ = home.append([], np.arange(50), unit(np.random.default_rng(0), 50, 24), NONE)
    assert only(home, records, np.arange(50)).n == 0
    assert len(only(home, records, np.arange(50)).search(np.ones(24), 5)[0]) == 0
    records, left = home.append(records, NONE, np.empty((0, 24), np.float32), np.arange(50))
    home.remove_unlisted(records)
    assert (records, left.tolist(), list(home.path.glob("*.seg"))) == ([], [], [])


def test_rebuild_equals_what_was(home: SegmentFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "REBUILD_ROWS", 64)
    rng = np.random.default_rng(3)
    vectors_ND = unit(rng, 300, 24)
    old, _ = home.append([], np.arange(300), vectors_ND, NONE)
    new = home.rebuild(old, ((np.arange(s, s + 20), vectors_ND[s : s + 20]) for s in range(0, 300, 20)))
    assert {record.generation for record in new}.isdisjoint({record.generation for record in old})
    q_D = unit(rng, 1, 24)[0]
    for one, other in zip(only(home, old).search(q_D, 20), only(home, new).search(q_D, 20), strict=True):
        np.testing.assert_array_equal(one, other)
    assert home.rebuild(new, iter(())) == []


def test_another_embedder_is_refused(home: SegmentFolder) -> None:
    records, _ = home.append([], np.arange(5), unit(np.random.default_rng(0), 5, 24), NONE)
    with pytest.raises(BadInput, match="another embedder"):
        replace(home, embedder="embedder-2").open(records)


def damage_cases() -> list[str]:
    return ["missing", "empty", "cut", "longer", "header", "ids", "codes", "full", "checksums", "swapped"]


@pytest.mark.parametrize("case", damage_cases())
def test_damage_is_found(home: SegmentFolder, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(folder_module, "EXACT_ROWS", 50)
    vectors_ND = unit(np.random.default_rng(0), 400, 24)
    records, _ = home.append([], np.arange(400), vectors_ND, NONE)
    home.open(records)  # compared and remembered: what follows must be noticed all the same
    path = home.path / records[0].name
    raw = bytearray(path.read_bytes())
    blocks, _ = home.open(records)[0].header.layout()
    if case == "missing":
        path.unlink()
    elif case == "swapped":
        other, _ = SegmentFolder(home.path / "other", "embedder-1", 24).append(
            [], np.arange(400), vectors_ND[::-1], NONE
        )
        (home.path / "other" / other[0].name).replace(path)
    else:
        if case == "empty":
            raw.clear()
        elif case == "cut":
            del raw[-1]
        elif case == "longer":
            raw += b"\0"
        elif case == "header":
            raw[40] ^= 1
        else:
            offset, size = blocks[case]
            raw[offset + size // 2] ^= 16
        path.write_bytes(raw)
    with pytest.raises(DamagedIndexError, match=records[0].name):
        home.open(records)
    rebuilt = home.rebuild(records, [(np.arange(400), vectors_ND)])
    assert only(home, rebuilt).n == 400


def test_decay_that_touches_no_time_is_found_by_the_writer(
    home: SegmentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that returns another bit leaves the file's times as they were."""
    records, _ = home.append([], np.arange(400), unit(np.random.default_rng(0), 400, 24), NONE)
    home.open(records)
    path = home.path / records[0].name
    raw = bytearray(path.read_bytes())
    raw[-4096] ^= 1
    path.write_bytes(raw)
    monkeypatch.setattr(folder_module, "stamp_of", lambda _: home._verified()[records[0].name])
    monkeypatch.setattr(folder_module, "SPOT_PIECES", 0)
    home.open(records)
    with pytest.raises(DamagedIndexError):
        home.open(records, verify=True)


def test_lying_headers_never_crash(home: SegmentFolder) -> None:
    """Headers with a right checksum and wrong contents: huge counts, wrong types, negative sizes."""
    records, _ = home.append([], np.arange(40), unit(np.random.default_rng(0), 40, 24), NONE)
    path = home.path / records[0].name
    raw = path.read_bytes()
    for body in [
        b"[]", b"{}", b"null", b'{"n": 1}', b"\xff\xfe", b"{" * 3000,
        *(
            (b'{"generation":1,"n":%b,"dimensions":%b,"prefix":%b,"step":1.0,"embedder":"e","checksums_crc":0}' % sizes)
            for sizes in [
                (b"-1", b"24", b"0"), (b"1e400", b"24", b"0"), (b"9" * 30, b"24", b"0"), (b'"x"', b"24", b"8"),
                (b"4", b"0", b"0"), (b"4", b"24", b"7"), (b"1.5", b"24", b"0"), (b"true", b"24", b"0"),
            ]
        ),
    ]:  # fmt: skip
        padded = body.ljust(segment.HEADER_BYTES - 16)
        path.write_bytes(raw[:12] + zlib.crc32(padded).to_bytes(4, "little") + padded + raw[segment.HEADER_BYTES :])
        with pytest.raises(DamagedIndexError):
            home.open(records)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path: Path, where: float, bit: int) -> None:
    home = SegmentFolder(tmp_path / "s", "e", 5)
    records, _ = home.append([], np.arange(40), unit(np.random.default_rng(0), 40, 5), NONE)
    path = home.path / records[0].name
    raw = bytearray(path.read_bytes())
    raw[int(where * len(raw))] ^= 1 << bit
    path.write_bytes(raw)
    with pytest.raises(DamagedIndexError):
        home.open(records)


CRASHING = """
import os, sys
import numpy as np
from pathlib import Path
from kogata.ask.vectors import SegmentFolder, SegmentRecord
home = SegmentFolder(Path(sys.argv[1]), "e", 8)
calls = 0
def killed(real):
    def wrapper(*arguments, **named):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
        return real(*arguments, **named)
    return wrapper
os.fsync = killed(os.fsync)
Path.replace = killed(Path.replace)
import kogata.ask.vectors.segment as segment
segment.put = killed(segment.put)
record = SegmentRecord(*sys.argv[3:4], *map(int, sys.argv[4:6]), sys.argv[6])
home.append([record], np.arange(200, 400), np.ones((200, 8)), np.array([3]))
"""


@pytest.mark.parametrize("call", [1, 2, 4, 5, 6, 7, 8])
def test_killed_while_writing(tmp_path: Path, call: int) -> None:
    """The committed manifest still opens, and the next append cleans up."""
    home = SegmentFolder(tmp_path, "e", 8)
    vectors_ND = unit(np.random.default_rng(0), 200, 8)
    records, _ = home.append([], np.arange(200), vectors_ND, NONE)
    one = records[0]
    arguments = [str(tmp_path), str(call), one.name, str(one.generation), str(one.n), one.checksum]
    process = subprocess.run([sys.executable, "-c", CRASHING, *arguments], check=False, capture_output=True)
    assert process.returncode == -9, process.stderr.decode()
    assert only(home, records).n == 200
    records, _ = home.append(records, np.arange(200, 400), vectors_ND, NONE)
    home.remove_unlisted(records)
    assert only(home, records).n == 400
    assert len([path for path in tmp_path.iterdir() if path.name != "verified.json"]) == len(records)


def test_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    home = SegmentFolder(tmp_path, "e", 64)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError):
            home.append([], np.arange(1000), unit(np.random.default_rng(0), 1000, 64), NONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_readers_keep_a_removed_segment(home: SegmentFolder) -> None:
    vectors_ND = unit(np.random.default_rng(0), 50, 24)
    records, _ = home.append([], np.arange(50), vectors_ND, NONE)
    reader = only(home, records)
    home.remove_unlisted([])
    assert os.listdir(home.path) in ([], ["verified.json"])
    assert reader.search(vectors_ND[7], 1)[1].tolist() == [7]


def test_bytes_do_not_depend_on_how_rows_arrived(tmp_path: Path) -> None:
    """The same rows give the same file, in any order: the checksum in the name says so."""
    rng = np.random.default_rng(0)
    vectors_ND, order = unit(rng, 20_000, 16), rng.permutation(20_000)
    one, _ = SegmentFolder(tmp_path / "a", "e", 16).append([], np.arange(20_000), vectors_ND, NONE)
    other, _ = SegmentFolder(tmp_path / "b", "e", 16).append([], np.arange(20_000)[order], vectors_ND[order], NONE)
    assert one == other
