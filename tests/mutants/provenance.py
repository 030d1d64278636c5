"""Breaches that are no property of a scorer: what covers each, or that nothing here can."""

PROVENANCE = (
    (
        "V6",
        "adaptation to the validation text before quantization, the artifact then frozen",
        "No test of the scorer: the artifact is a valid code that has seen the text. A run folder's source hash, recipe and "
        "data manifest say what it was trained on; for a foreign artifact, only fresh text of the same source, scored beside a "
        "model known clean, could. That comparison is not built.",
    ),
    (
        "V11",
        "quantizer calibrated on validation text",
        "No test of the scorer. The calibration of a run reads the training shards that its manifest names; for a foreign "
        "artifact nothing here can tell.",
    ),
    (
        "V12",
        "warm-up on the evaluation text with a complete reset",
        "Nothing, for nothing remains of it; what an incomplete reset leaves is the mutant above. Warm up on random tokens.",
    ),
    (
        "V22",
        "validation text inside the artifact",
        "No test of the scorer, as the row *artifact that knows the text* shows: it passes everything, decoding included. "
        "Fresh text costs such an artifact far more; long runs of targets that cost nothing are the sign.",
    ),
    (
        "V23, V24",
        "training on validation documents",
        "The data manifest: each split owns a range of documents, ranges that overlap are refused, and so are training "
        "documents that are also in validation. For a foreign artifact nothing here can tell.",
    ),
    (
        "V25",
        "tables filled from training text when scoring begins",
        "Isolation: proof by decoding runs in a fresh process that has the artifact, the code and the coded bytes, and tables "
        "inside the artifact count as its bytes. A foreign scorer is not kept from reading files.",
    ),
    (
        "V28",
        "the best of many seeds",
        "Q, if every run that was made is listed; runs that nobody wrote down, nothing can show.",
    ),
    ("V29", "a gap in the wrong unit", "Q, from the bytes and tokens of the text."),
    ("V30", "seeds of different code or settings, figures that no log has", "Q, from run folders or logs, if these are true."),
)
