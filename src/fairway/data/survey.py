"""The first pass over a corpus: how many documents there are, and a fixed sample of text to train a tokenizer on."""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from fairway.data.documents import Document

SAMPLE_BYTES = 12_000_000
"""Text that the tokenizer is trained on at most; more changes the pieces little and the time a lot."""


@dataclass(frozen=True)
class Survey:
    """Number of documents, their UTF-8 bytes, and the sampled documents in order."""

    documents: int
    bytes: int
    sample: tuple[Document, ...]


def survey_documents(documents: Iterable[Document], sample_bytes: int = SAMPLE_BYTES) -> Survey:
    """Count the documents and keep those with the smallest hash of their index, as many as fit in ``sample_bytes``.

    The sample depends on the documents and their order alone; memory is bounded by the sample and the longest document.
    """
    heap: list[tuple[int, int, int, Document]] = []
    count = total = kept = 0
    for document in documents:
        size = len(document.text.encode("utf-8"))
        count, total, kept = count + 1, total + size, kept + size
        heapq.heappush(heap, (-_key(document.index), document.index, size, document))
        while kept > sample_bytes and len(heap) > 1:
            kept -= heapq.heappop(heap)[2]
    return Survey(count, total, tuple(sorted((entry[3] for entry in heap), key=lambda document: document.index)))


def _key(index: int) -> int:
    return int.from_bytes(hashlib.blake2b(str(index).encode(), digest_size=8).digest(), "big")
