"""Colours, type and number formats, shared by the plots and the page. Every pass keeps its colour everywhere.

The hues are those of Okabe and Ito (2008), told apart by readers of every colour vision; passes also differ in line and
marker. The plots are drawn once, on white; on a dark page a style rule turns their lightness over and keeps their hues.
"""

from dataclasses import dataclass
from typing import Any

PASS_MEANING = {
    "float": "before quantization, chunk by chunk",
    "plain": "from the artifact, chunk by chunk, each chunk without the text before it",
    "sliding": "from the artifact, every target with a long context before it",
    "adapted": "from the artifact, sliding windows, weights trained on text that is already scored",
    "tilted": "the adapted pass, tilted toward what followed the same tokens in text that is already scored",
    "documents": "from the artifact, documents side by side, each with adapters trained on its own scored text",
    "documents_tilted": "the documents pass, tilted toward what followed the same tokens before",
}
CONDITION_MEANING = {
    "causal": "each prediction uses only what a decoder already has",
    "normalised": "the probabilities of all that could come next add up to one",
    "score before update": "nothing is learnt from a piece of text before its cost is fixed",
    "single pass": "each piece of text is scored once",
    "bytes": "the bytes that are counted are those of the text",
    "budget": "files and working time keep to their limits",
    "claim": "what is stated follows from the recorded figures",
}
"""What each validity condition of the audit asks."""
VERDICT_SIGN = {"pass": "✓ ", "fail": "✗ "}
PASS_MARKER = {
    "float": "s",
    "plain": "o",
    "sliding": "^",
    "adapted": "D",
    "tilted": "v",
    "documents": "P",
    "documents_tilted": "X",
}
PASS_LINE = {
    "float": (0, (1, 1.4)),
    "plain": "-",
    "sliding": (0, (5, 1.6)),
    "adapted": "-",
    "tilted": (0, (3, 1, 1, 1)),
    "documents": "-",
    "documents_tilted": (0, (3, 1, 1, 1)),
}
GAINING = ("sliding", "adapted", "tilted", "documents", "documents_tilted")
"""Passes that are drawn as what they save against the plain pass."""


@dataclass(frozen=True)
class Look:
    """Colours of the plots and of the light page, as ``#rrggbb``."""

    paper: str
    ink: str
    soft: str
    """Secondary text and reference lines."""
    grid: str
    passes: dict[str, str]
    train: str
    validation: str
    bar: str
    good: str
    bad: str
    counted: tuple[str, ...]
    """Phases that count against a budget, in order."""
    uncounted: tuple[str, ...]

    def settings(self) -> dict[str, Any]:
        """Matplotlib settings for ``matplotlib.style.context``; text from a run is never read as mathematics."""
        return {
            "figure.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "axes.edgecolor": self.soft,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 9,
            "axes.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.formatter.use_mathtext": False,
            "axes.unicode_minus": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.8,
            "text.color": self.ink,
            "text.parse_math": False,
            "xtick.color": self.soft,
            "ytick.color": self.soft,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.frameon": True,
            "legend.framealpha": 0.85,
            "legend.facecolor": self.paper,
            "legend.edgecolor": "none",
            "legend.borderpad": 0.2,
            "legend.fontsize": 9.5,
            "legend.labelcolor": self.ink,
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 10,
            "lines.linewidth": 1.8,
            "hatch.linewidth": 0.7,
        }


COLOURS = Look(
    paper="#ffffff",
    ink="#1b2430",
    soft="#667180",
    grid="#e6e9ee",
    passes={
        "float": "#737b87",
        "plain": "#0072b2",
        "sliding": "#d98200",
        "adapted": "#00795b",
        "tilted": "#b0568b",
        "documents": "#c8500a",
        "documents_tilted": "#3d8fc0",
    },
    train="#0072b2",
    validation="#c8500a",
    bar="#6aa5cc",
    good="#00795b",
    bad="#c8500a",
    counted=("#0072b2", "#d98200", "#00795b", "#b0568b", "#56b4e9", "#8a6d00", "#c8500a", "#374d9c"),
    uncounted=("#c3c9d2", "#aab2bd", "#d8dce2", "#929ca9"),
)


def thousands(value: float | int) -> str:
    """A count with thousands separated, such as ``1,234``."""
    return f"{value:,.0f}"


def short_count(value: float | int, _position: float | int | None = None) -> str:
    """A count of at most four characters and a unit, such as ``1.2M``; also a formatter of axis ticks."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float | int) -> str:
    """Seconds with a precision that suits their size, such as ``0.42 s``, ``61.2 s`` or ``1,250 s``."""
    if seconds >= 1000:
        return f"{seconds:,.0f} s"
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s"


def visible(text: str) -> str:
    """Text that any page can hold: what a page would hide, reorder or refuse is written as ``<U+XXXX>``.

    These are control characters other than tab and newline, zero-width and direction signs, lone surrogates and the
    code points that Unicode reserves as non-characters.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_sign, text))


def _sign(character: str) -> str:
    code = ord(character)
    control = (code < 0x20 and character not in "\n\t") or 0x7F <= code <= 0x9F
    unseen = 0x200B <= code <= 0x200F or 0x2028 <= code <= 0x202E or 0x2060 <= code <= 0x206F or code == 0xFEFF
    invalid = 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or (code & 0xFFFE) == 0xFFFE
    return f"<U+{code:04X}>" if control or unseen or invalid else character


def plot_label(text: str, longest: int = 40) -> str:
    """A name for a plot: one line, only signs that the plots' font has, shortened in the middle."""
    clean = "".join(character if character.isascii() and character.isprintable() else "?" for character in text)
    if len(clean) <= longest:
        return clean
    head = (longest - 3) // 2
    return f"{clean[:head]}...{clean[-(longest - 3 - head) :]}"
