"""Which kind a file is: by its name first, by its first bytes where the name says nothing or lies."""

from __future__ import annotations

import os

# kind -> suffixes. The order within a kind is for display only.
_KINDS: dict[str, tuple[str, ...]] = {
    "pdf": (".pdf",),
    "html": (".html", ".htm", ".xhtml", ".shtml"),
    "md": (".md", ".markdown", ".mkd", ".mdx", ".qmd", ".rmd"),
    "txt": (".txt", ".text", ".log", ".nfo", ".srt", ".vtt"),
    "rst": (".rst", ".rest"),
    "docx": (".docx", ".docm", ".dotx"),
    "pptx": (".pptx", ".pptm", ".ppsx"),
    "xlsx": (".xlsx", ".xlsm"),
    "odt": (".odt", ".ott", ".fodt"),
    "ods": (".ods", ".fods"),
    "odp": (".odp", ".fodp"),
    "epub": (".epub",),
    "csv": (".csv", ".tsv", ".tab"),
    "json": (".json", ".jsonl", ".ndjson", ".geojson"),
    "xml": (".xml", ".xsd", ".xsl", ".xslt", ".rss", ".atom", ".dbk", ".svg"),
    "eml": (".eml",),
    "mbox": (".mbox", ".mbx"),
    "ipynb": (".ipynb",),
    "tex": (".tex", ".ltx", ".sty", ".cls", ".bib"),
    "org": (".org",),
    "code": (
        ".py", ".pyi", ".pyx", ".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".inl", ".cu", ".cuh", ".m",
        ".mm", ".java", ".kt", ".kts", ".scala", ".groovy", ".gradle", ".cs", ".fs", ".vb", ".js", ".mjs", ".cjs",
        ".jsx", ".ts", ".tsx", ".vue", ".svelte", ".css", ".scss", ".less", ".go", ".rs", ".swift", ".dart", ".zig",
        ".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".hs", ".ml", ".mli", ".ex", ".exs", ".erl", ".clj", ".lisp",
        ".el", ".scm", ".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat", ".sql", ".proto", ".graphql", ".cmake",
        ".mk", ".toml", ".yaml", ".yml", ".ini", ".cfg", ".conf", ".tf", ".nix", ".asm", ".s", ".f90", ".f", ".v",
        ".sv", ".vhd", ".diff", ".patch",
    ),
}  # fmt: skip

_NAMES = {
    "readme": "txt", "license": "txt", "licence": "txt", "copying": "txt", "authors": "txt", "changelog": "txt",
    "news": "txt", "todo": "txt", "install": "txt", "contributing": "txt", "notice": "txt", "copyright": "txt",
    "makefile": "code", "dockerfile": "code", "rakefile": "code", "gemfile": "code", "jenkinsfile": "code",
    "cmakelists.txt": "code", "requirements.txt": "txt",
}  # fmt: skip

_BY_SUFFIX = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes}

# Formats that are not text and have no parser here: named at once, without opening them.
_BINARY_WORDS = """
    .png .jpg .jpeg .gif .bmp .tif .tiff .webp .heic .ico .psd .ai .mp3 .wav .flac .ogg .opus .m4a .aac .mp4
    .mkv .mov .avi .webm .wmv .zip .gz .bz2 .xz .zst .7z .rar .tar .tgz .jar .whl .egg .deb .rpm .apk .dmg .iso
    .img .exe .dll .so .dylib .a .o .obj .lib .pyc .pyo .class .wasm .bin .dat .db .sqlite .sqlite3 .mdb .npy
    .npz .pt .pth .onnx .safetensors .gguf .parquet .arrow .feather .h5 .hdf5 .pkl .ttf .otf .woff .woff2 .eot
    .doc .xls .ppt .msg .pst .mobi .azw3 .djvu .swp
"""
_BINARY = frozenset(_BINARY_WORDS.split())

_TEXT_KINDS = frozenset(
    {"html", "md", "txt", "rst", "csv", "json", "xml", "eml", "mbox", "ipynb", "tex", "org", "code"}
)

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"), (b"MM\x00*", "a TIFF picture"), (b"RIFF", "a media file"),
    (b"\x7fELF", "a program"), (b"MZ", "a program"), (b"\xca\xfe\xba\xbe", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"), (b"\xfd7zXZ\x00", "an xz archive"), (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"), (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"SQLite format 3\x00", "a database"),
    (b"ID3", "a sound file"), (b"fLaC", "a sound file"), (b"OggS", "a media file"), (b"\x00asm", "a program"),
)  # fmt: skip

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def kinds() -> dict[str, tuple[str, ...]]:
    """Every kind of document that is read, and the suffixes it goes by."""
    return dict(_KINDS)


def is_text(kind: str) -> bool:
    """Whether files of this kind are encoded text (so that the encoding has to be found out)."""
    return kind in _TEXT_KINDS


def by_name(path: bytes) -> str | None:
    """The kind a file's name promises: a key of :func:`kinds`, ``"binary"``, or None when the name says nothing."""
    name = os.path.basename(path).decode("utf-8", "replace").lower()
    if name in _NAMES:
        return _NAMES[name]
    stem, suffix = os.path.splitext(name)
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in _BINARY:
        return "binary"
    return _NAMES.get(stem) if suffix[1:].isdigit() or suffix in ("", ".in") else None


def by_content(head: bytes) -> str | None:
    """The kind the first bytes (1 KiB is enough) prove, if any: ``"pdf"``, ``"zip"``, ``"ole"``, or ``"html"`` …"""
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(_OLE):
        return "ole"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    if start.startswith(b"<?xml"):
        return "html" if b"<html" in head[:1024].lower() else "xml"
    if start.startswith(b"{\\rtf"):
        return "rtf"
    if head.startswith(b"From ") and b"\n" in head and b": " in head:
        return "mbox"
    return None


def binary_name(head: bytes) -> str | None:
    """What a binary file is, in words, when its first bytes are known."""
    if len(head) >= 8 and head[4:8] == b"ftyp":
        return "a media file"
    return next((words for magic, words in _MAGIC if head.startswith(magic)), None)
