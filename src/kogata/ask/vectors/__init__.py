"""Vectors on disk and the search over them: immutable memory-mapped segments, adaptive retrieval, a graph for the
very large.
"""

from kogata.ask.vectors.folder import SegmentFolder
from kogata.ask.vectors.search import VectorSet
from kogata.ask.vectors.segment import Segment, SegmentRecord

__all__ = ["Segment", "SegmentFolder", "SegmentRecord", "VectorSet"]
