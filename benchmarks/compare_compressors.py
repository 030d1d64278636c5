"""Bits per byte of runs beside two compressors that everybody has, on exactly the same text, in one run.

The text is what the runs scored: decoded from the data folder, as long as their ledgers. The compressors get it as one
file, without any training text; the runs' bits leave out their artifact, so the last column adds it.

    python benchmarks/compare_compressors.py --data DATA RUN [RUN ...]
"""

import argparse
import json
import lzma
import statistics
import time
from pathlib import Path

import brotli

from fairway.data.dataset import Dataset


def main() -> None:
    """Print one line per compressor and per run, then means and deviations over the runs by pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    scores = [json.loads((run / "score.json").read_text()) for run in arguments.runs]
    dataset = Dataset.open(arguments.data)
    if len({(score["tokens"], score["data_fingerprint"]) for score in scores}) != 1:
        raise SystemExit("the runs scored different texts; compare runs on the same data and score.max_tokens")
    if scores[0]["data_fingerprint"] != dataset.fingerprint:
        raise SystemExit(f"{arguments.data} is not the data of these runs")
    text = dataset.tokenizer.decode_bytes(dataset.validation().tokens[1 : scores[0]["tokens"] + 1])
    assert len(text) == scores[0]["bytes"], "the ledger's bytes are the text's length"
    print(f"{len(text):,} bytes of text, {scores[0]['tokens']:,} targets")
    for name, compress in (
        ("xz -9e", lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
        ("brotli -q 11 -w 24", lambda content: brotli.compress(content, quality=11, lgwin=24)),
    ):
        began = time.perf_counter()
        size = len(compress(text))
        print(f"{name:<22} {8 * size / len(text):.4f} bits/byte   {time.perf_counter() - began:.1f} s")
    for run, score in zip(arguments.runs, scores, strict=True):
        total = 8 * score["total_bytes"] / score["bytes"]
        figures = "  ".join(f"{name} {item['bits_per_byte']:.4f}" for name, item in score["passes"].items())
        print(
            f"{run.name:<22} {figures}   artifact and code {score['total_bytes']:,} bytes = {total:.3f} bits/byte of this text"
        )
    for name in scores[0]["passes"]:
        values = [score["passes"][name]["bits_per_byte"] for score in scores]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:<22} mean {statistics.mean(values):.4f}  standard deviation (n-1) {spread:.4f}  n={len(values)}")


if __name__ == "__main__":
    main()
