"""Encoding with the byte ledger and the proof of losslessness, against SentencePiece's plain batch encoder."""

import statistics
import time

from fairway.data.documents import read_documents
from fairway.data.ledger import encode_documents
from fairway.data.tokenizer import train_tokenizer

ROUNDS = 5
BYTES = 6_000_000
THREADS = 2


def timed(function) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    texts, size = [], 0
    for document in read_documents(["python-stdlib"]):
        texts.append(document.text)
        size += len(document.text.encode())
        if size > BYTES:
            break
    tokenizer = train_tokenizer(texts, 2048)
    plain, ledger = [], []
    for _ in range(ROUNDS):
        plain.append(timed(lambda: tokenizer.encode_batch(texts, THREADS)))
        ledger.append(timed(lambda: encode_documents(tokenizer, texts, THREADS)))
    ratios = [with_ledger / without for with_ledger, without in zip(ledger, plain, strict=True)]
    print(
        f"encoded {size / 1e6:.1f} MB of Python source, {len(texts)} documents, {THREADS} threads, {ROUNDS} interleaved rounds"
    )
    print(f"plain sentencepiece batch encode   {size / 1e6 / statistics.median(plain):7.2f} MB/s")
    print(f"with byte ledger and decode check  {size / 1e6 / statistics.median(ledger):7.2f} MB/s")
    print(f"time ratio ledger / plain          {statistics.median(ratios):7.3f}  ({min(ratios):.3f} .. {max(ratios):.3f})")


if __name__ == "__main__":
    main()
