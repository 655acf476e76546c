"""One immutable file of vectors, memory-mapped: written once, renamed into place, never changed.

    0      header: magic, format version, CRC of the rest, JSON padded to 4,096 bytes
    4096   ids int64 [n], ascending
           basis f32 [P, D], centre f32 [P], codes uint8 [B, G, 64]   (P = 0: a segment too small to need a prefix)
           full float16 [n, D]
           checksums: CRC-32 of every MiB between the header and here

Every block starts at a multiple of 64 bytes. The header names generation, counts, embedder and the checksum of the
checksums, so the header's own CRC, which the store's manifest keeps, pins every byte of the file.

Shapes: n rows, D dimensions, P prefix dimensions, B = ceil(n/16) blocks, G = P/8 groups.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kogata.ask.vectors.prefix import Prefix
from kogata.errors import DamagedIndexError
from kogata.ops.score import pack_codes

MAGIC = b"KOGATSEG"
VERSION = 1
HEADER_BYTES = 4096
PIECE = 1 << 20
WRITE_ROWS = 8192  # a multiple of the scan's 16-row blocks


@dataclass(frozen=True)
class SegmentRecord:
    """What the store's manifest keeps of a live segment: one row of its table `segments`."""

    name: str
    generation: int
    n: int
    checksum: str


@dataclass(frozen=True)
class Header:
    generation: int
    n: int
    dimensions: int
    prefix: int
    step: float
    embedder: str
    checksums_crc: int

    def layout(self) -> tuple[dict[str, tuple[int, int]], int]:
        """({block: (offset, bytes)}, size of the file)."""
        sizes = {
            "ids": 8 * self.n,
            "basis": 4 * self.prefix * self.dimensions,
            "centre": 4 * self.prefix,
            "codes": -(-self.n // 16) * self.prefix * 8,
            "full": 2 * self.n * self.dimensions,
        }
        blocks: dict[str, tuple[int, int]] = {}
        offset = HEADER_BYTES
        for name, size in sizes.items():
            blocks[name] = (offset, size)
            offset += -(-size // 64) * 64
        blocks["checksums"] = (offset, 4 * -(-(offset - HEADER_BYTES) // PIECE))
        return blocks, offset + blocks["checksums"][1]

    def to_bytes(self) -> bytes:
        body = json.dumps(asdict(self)).encode().ljust(HEADER_BYTES - 16)
        if len(body) != HEADER_BYTES - 16:
            raise ValueError(
                f"the embedder's identity is too long for a segment's header: {len(self.embedder)} characters"
            )
        return struct.pack("<8sII", MAGIC, VERSION, zlib.crc32(body)) + body

    @classmethod
    def from_bytes(cls, raw: bytes, name: str) -> Header:
        if len(raw) < HEADER_BYTES:
            raise damaged(name, "is shorter than its header")
        magic, version, crc = struct.unpack_from("<8sII", raw)
        if magic != MAGIC or version != VERSION:
            raise damaged(name, "is not a segment of this version")
        if zlib.crc32(raw[16:HEADER_BYTES]) != crc:
            raise damaged(name, "has a damaged header")
        try:
            header = cls(**json.loads(raw[16:HEADER_BYTES]))
            sound = min(header.n, header.dimensions - 1, header.prefix) >= 0 and header.prefix % 8 == 0
        except (TypeError, ValueError, AttributeError) as error:
            raise damaged(name, "has a header that cannot be read") from error
        if not sound:
            raise damaged(name, "has a header with impossible sizes")
        return header


def damaged(name: str, how: str) -> DamagedIndexError:
    return DamagedIndexError(
        f"The vector segment {name} {how}.", hint="`kogata index` makes it anew from the index file."
    )


@dataclass(frozen=True)
class Segment:
    """An open segment. The arrays are views of the mapping, which lives as long as they do, even when the file is
    removed.
    """

    path: Path
    record: SegmentRecord
    header: Header
    ids_n: NDArray[np.int64]
    full_nD: NDArray[np.float16]
    codes_BG64: NDArray[np.uint8]
    prefix: Prefix | None
    checksums: NDArray[np.uint32]
    payload: NDArray[np.uint8]
    graph: Path | None = None
    """The file of its HNSW graph (graph.py), where there is one and it is intact."""

    @classmethod
    def open(cls, path: Path, record: SegmentRecord | None = None) -> Segment:
        """Map the file and check header and size (bounded time, whatever the size); see verify for the rest.

        Raises DamagedIndexError for a file that is missing, cut short, of another version or not the one that the
        record names.
        """
        try:
            with path.open("rb") as file:
                header = Header.from_bytes(file.read(HEADER_BYTES), path.name)
                blocks, size = header.layout()
                if os.fstat(file.fileno()).st_size != size:
                    raise damaged(path.name, f"has {os.fstat(file.fileno()).st_size} bytes instead of {size}")
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise damaged(path.name, "is missing") from error
        except OSError as error:
            raise damaged(path.name, f"cannot be read ({error.strerror})") from error
        found = record_of(path.name, header)
        if record is not None and (record.checksum, record.n) != (found.checksum, found.n):
            raise damaged(path.name, "is not the one that the index file names")

        def view(name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
            offset, n_bytes = blocks[name]
            return np.frombuffer(mapping, np.uint8, n_bytes, offset).view(dtype).reshape(shape)

        n, d, p = header.n, header.dimensions, header.prefix
        checksums = view("checksums", np.uint32, (-1,))
        if zlib.crc32(checksums.data) != header.checksums_crc:
            raise damaged(path.name, "has damaged checksums")
        basis_PD, centre_P = view("basis", np.float32, (p, d)), view("centre", np.float32, (p,))
        return cls(
            path=path,
            record=found,
            header=header,
            ids_n=view("ids", np.int64, (n,)),
            full_nD=view("full", np.float16, (n, d)),
            codes_BG64=view("codes", np.uint8, (-(-n // 16), p // 8, 64)),
            prefix=Prefix(basis_PD, centre_P, header.step) if p else None,
            checksums=checksums,
            payload=np.frombuffer(mapping, np.uint8, blocks["checksums"][0] - HEADER_BYTES, HEADER_BYTES),
        )

    def verify(self, pieces: Iterable[int] | None = None) -> None:
        """Compare the given MiB pieces (all for None) with their checksums. Raises DamagedIndexError at the first
        that differs.
        """
        for piece in range(len(self.checksums)) if pieces is None else pieces:
            if zlib.crc32(self.payload[piece * PIECE : (piece + 1) * PIECE].data) != self.checksums[piece]:
                raise damaged(self.path.name, "holds bytes that changed on disk")


def record_of(name: str, header: Header) -> SegmentRecord:
    return SegmentRecord(name, header.generation, header.n, f"{zlib.crc32(header.to_bytes()):08x}")


@dataclass(frozen=True)
class Block:
    """Rows to write: ids int64 [m] ascending, vectors float16 [m, D]."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float16]


def write_segment(
    folder: Path,
    *,
    generation: int,
    embedder: str,
    dimensions: int,
    n: int,
    prefix: Prefix | None,
    blocks: Iterable[Block],
) -> SegmentRecord:
    """Write n rows given as blocks of WRITE_ROWS (the last may be shorter), ids ascending throughout, as one new file
    of the folder.

    The name carries generation and checksum: a name means one content for ever. Temporary file, fsync, rename, fsync
    of the folder; whatever interrupts it leaves at most a temporary file, which the next append removes. Memory: one
    block. Raises OSError where the disk is full.
    """
    header = Header(
        generation, n, dimensions, len(prefix.basis_PD) if prefix else 0, prefix.step if prefix else 0.0, embedder, 0
    )
    layout, _ = header.layout()
    temporary = folder / f".{generation:06d}.tmp"
    try:
        with temporary.open("w+b") as file:
            written = write_blocks(file, layout, prefix, blocks)
            if written != n:
                raise ValueError(f"{written} rows were given for a segment of {n}")
            file.truncate(layout["checksums"][0])
            checksums = checksum_pieces(file, layout["checksums"][0])
            header = Header(**{**asdict(header), "checksums_crc": zlib.crc32(checksums)})
            put(file, layout["checksums"][0], checksums)
            put(file, 0, header.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        record = record_of("", header)
        name = f"{generation:06d}-{record.checksum}.seg"
        temporary.replace(folder / name)
        sync_folder(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return record_of(name, header)


def write_blocks(
    file: BinaryIO, layout: dict[str, tuple[int, int]], prefix: Prefix | None, blocks: Iterable[Block]
) -> int:
    if prefix is not None:
        put(file, layout["basis"][0], prefix.basis_PD)
        put(file, layout["centre"][0], prefix.centre_P)
    written = 0
    for block in blocks:
        if written % WRITE_ROWS:
            raise ValueError("only the last block of a segment may be short")
        put(file, layout["ids"][0] + 8 * written, block.ids)
        put(file, layout["full"][0] + 2 * written * block.vectors.shape[1], block.vectors)
        if prefix is not None:
            packed = pack_codes(prefix.codes(block.vectors))
            put(file, layout["codes"][0] + written // 16 * packed[:1].nbytes, packed)
        written += len(block.ids)
    return written


def put(file: BinaryIO, offset: int, payload: bytes | NDArray[np.generic]) -> None:
    file.seek(offset)
    file.write(payload if isinstance(payload, bytes) else np.ascontiguousarray(payload).data)


def checksum_pieces(file: BinaryIO, end: int) -> bytes:
    file.seek(HEADER_BYTES)
    read: Callable[[int], bytes] = file.read
    sums = [zlib.crc32(read(min(PIECE, end - start))) for start in range(HEADER_BYTES, end, PIECE)]
    return np.array(sums, np.uint32).tobytes()


def sync_folder(folder: Path) -> None:
    """A rename is durable once its folder is; Windows has no such call and needs none."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
