"""Two models on the same documents: the paired difference, which says more about one text than any number of seeds.

Documents differ among themselves far more than models do. Pairing removes what makes a document hard for both, so a
difference of a thousandth of a bit per byte can be plain with one run on each side. It is a statement about these packed
models on text like this one; how far another seed would move either of them, it cannot show.
"""

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
from fairway.record.statistics import upper_tail

REMEDY = "score the run again with fairway score"


@dataclass(frozen=True)
class DocumentCosts:
    """What every document of a scored text cost one run, in nats, and its length in bytes."""

    nats: Float64[np.ndarray, " documents"]
    bytes: Int64[np.ndarray, " documents"]
    byte_costs: UInt16[np.ndarray, " targets"]
    """Bytes of every target: equal for two runs that scored the same text cut by the same tokenizer."""
    starts: Int64[np.ndarray, " documents"]
    """Input that opens each document."""

    def same_text(self, other: "DocumentCosts") -> bool:
        """Whether both are costs of one text."""
        return np.array_equal(self.starts, other.starts) and np.array_equal(self.byte_costs, other.byte_costs)


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
    try:
        with ledger.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            nats = archive[f"{pass_name}_nll"].astype(np.float64)
            byte_costs, documents = archive["bytes"].astype(np.uint16), archive["documents"].astype(np.int64)
    except FileNotFoundError:
        raise DataError(f"{ledger} does not exist; {REMEDY}") from None
    except KeyError as error:
        raise DataError(f"{ledger} lacks the array {error}; {REMEDY}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError) as error:
        raise DataError(f"{ledger} cannot be read as a NumPy archive ({error}); {REMEDY}") from None
    # The stream opens with a document even where its first token is no marker.
    starts = np.unique(np.concatenate([np.zeros(1, np.int64), documents[documents < len(byte_costs)]]))
    if len(nats) != len(byte_costs) or starts[0] < 0 or not len(byte_costs) or not np.isfinite(nats).all():
        raise DataError(f"{ledger}: the arrays {pass_name}_nll, bytes and documents do not fit together; {REMEDY}")
    lengths = np.add.reduceat(byte_costs.astype(np.int64), starts)
    return DocumentCosts(np.add.reduceat(nats, starts), lengths, byte_costs, starts)


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
