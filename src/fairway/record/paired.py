"""Two models on the same documents: the paired difference, which says more about one text than any number of seeds.

Documents differ among themselves far more than models do. Pairing removes what makes a document hard for both, so a
difference of a thousandth of a bit per byte can be plain with one run on each side. It is a statement about these packed
models on text like this one; how far another seed would move either of them, it cannot show.
"""

import hashlib
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt16

from fairway.base.errors import DataError
from fairway.base.files import write_with
from fairway.record.statistics import upper_tail

REMEDY = "score the run again with fairway score"


@dataclass(frozen=True)
class DocumentCosts:
    """What every document of a scored text cost one run, in nats, and its length in bytes."""

    nats: Float64[np.ndarray, " documents"]
    bytes: Int64[np.ndarray, " documents"]
    starts: Int64[np.ndarray, " documents"]
    """Input that opens each document."""
    tokens: int
    """Targets of all documents."""
    text: str
    """`text_digest`: equal for two runs that scored the same text cut by the same tokenizer."""

    def same_text(self, other: "DocumentCosts") -> bool:
        """Whether both are costs of one text."""
        return self.text == other.text

    @property
    def bits_per_byte(self) -> float:
        """``nats / ln 2 / bytes`` of the whole text; NaN for text of no bytes."""
        text = int(self.bytes.sum())
        return float(self.nats.sum()) / math.log(2.0) / text if text else math.nan


def text_digest(byte_costs: UInt16[np.ndarray, " targets"], starts: Int64[np.ndarray, " documents"]) -> str:
    """SHA-256 of the bytes of every target and of the starts of the documents, little-endian: 64 hexadecimal digits."""
    digest = hashlib.sha256(np.ascontiguousarray(byte_costs, dtype="<u2").tobytes())
    digest.update(np.ascontiguousarray(starts, dtype="<i8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Paired:
    """Paired difference of two sides over documents; positive when the new side is better."""

    difference: float
    """Reference minus new, in bits per byte of the whole text."""
    standard_error: float
    """Of the difference, over documents, in bits per byte."""
    documents: int
    better: int
    """Documents that the new side codes in fewer bits."""
    t: float
    """``difference / standard_error``."""
    p: float
    """One-sided, ``documents - 1`` degrees of freedom."""


def read_costs(ledger: Path, pass_name: str) -> DocumentCosts:
    """Costs by document from ``ledger.npz``; a document's end marker, of no bytes, is charged to the document it ends.

    Raises:
        DataError: the file is missing or damaged, or lacks the pass.
    """
    nats, byte_costs, documents = _arrays(ledger, (f"{pass_name}_nll", "bytes", "documents"), REMEDY)
    nats, byte_costs, documents = nats.astype(np.float64), byte_costs.astype(np.uint16), documents.astype(np.int64)
    # The stream opens with a document even where its first token is no marker.
    starts = np.unique(np.concatenate([np.zeros(1, np.int64), documents[documents < len(byte_costs)]]))
    if len(nats) != len(byte_costs) or starts[0] < 0 or not len(byte_costs) or not np.isfinite(nats).all():
        raise DataError(f"{ledger}: the arrays {pass_name}_nll, bytes and documents do not fit together; {REMEDY}")
    lengths = np.add.reduceat(byte_costs.astype(np.int64), starts)
    return DocumentCosts(
        np.add.reduceat(nats, starts), lengths, starts, tokens=len(byte_costs), text=text_digest(byte_costs, starts)
    )


def _arrays(path: Path, names: Sequence[str], remedy: str) -> list[np.ndarray]:
    """Arrays of a NumPy archive, or a ``DataError`` that says what is wrong with it."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {remedy}") from None
    except KeyError as error:
        raise DataError(f"{path} lacks the array {error}; {remedy}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a NumPy archive ({error}); {remedy}") from None


def write_document_costs(path: Path, costs: DocumentCosts) -> None:
    """Write costs by document, thousands of times smaller than the ledger that they are summed from, and without its text.

    Equal costs give equal bytes: the archive holds no time.
    """
    arrays = {"nats": costs.nats, "bytes": costs.bytes, "starts": costs.starts, "tokens": np.int64(costs.tokens)}
    text = np.frombuffer(bytes.fromhex(costs.text), dtype=np.uint8)
    write_with(path, lambda file: np.savez_compressed(file, text=text, **arrays))


def read_document_costs(path: Path) -> DocumentCosts:
    """Read what `write_document_costs` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    remedy = "restore the folder of the record"
    nats, sizes, starts, tokens, text = _arrays(path, ("nats", "bytes", "starts", "tokens", "text"), remedy)
    kinds = [(item.dtype, item.ndim) for item in (nats, sizes, starts, tokens, text)]
    expected = [(np.dtype(np.float64), 1), *[(np.dtype(np.int64), 1)] * 2, (np.dtype(np.int64), 0), (np.dtype(np.uint8), 1)]
    if kinds != expected or not len(nats) == len(sizes) == len(starts) > 0 or not np.isfinite(nats).all() or len(text) != 32:
        raise DataError(f"{path}: its arrays do not fit together; {remedy}")
    return DocumentCosts(nats, sizes, starts, tokens=int(tokens), text=text.tobytes().hex())


def paired_difference(new: Sequence[DocumentCosts], reference: Sequence[DocumentCosts]) -> Paired:
    """Difference in bits per byte and its standard error over documents.

    With ``d_j`` the bits that the reference needs more than the new side for document ``j`` (means over the runs of each
    side) and ``b_j`` its bytes, the difference ``D = sum(d) / sum(b)`` is a ratio, whose standard error is::

        sqrt(n / (n - 1) * sum((d_j - D b_j)**2)) / sum(b)

    Documents count as independent draws. That is not exact where a scorer learns from earlier documents.

    Raises:
        DataError: the texts differ, or there are fewer than two documents.
        MachineError: scipy is missing.
    """
    first = new[0]
    if not all(first.same_text(other) for other in (*new, *reference)):
        raise DataError("the ledgers are of different texts, so documents cannot be paired; score both sides on one text")
    count = len(first.starts)
    if count < 2:
        raise DataError("one document gives no standard error; score a text of at least two documents")
    bits = (_mean_nats(reference) - _mean_nats(new)) / math.log(2.0)
    total = float(first.bytes.sum())
    difference = float(bits.sum()) / total
    residuals = bits - difference * first.bytes
    error = math.sqrt(count / (count - 1) * float((residuals**2).sum())) / total
    t = difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
    return Paired(difference, error, count, int((bits > 0).sum()), t, upper_tail(t, count - 1.0))


def _mean_nats(side: Sequence[DocumentCosts]) -> Float64[np.ndarray, " documents"]:
    stacked: Any = np.stack([costs.nats for costs in side])
    return stacked.mean(axis=0)
