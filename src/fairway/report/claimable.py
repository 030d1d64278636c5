"""Why a score of mode ``as_published`` cannot be claimed, in two sentences for people."""

from fairway.config import ADAPTIVE_PASSES, DOCUMENT_PASSES, ScoreConfig
from fairway.score.plan import adapted_plan, early_targets

REASONS = {
    "documents_tilted": (
        "Documents are scored side by side in an order made from the lengths of all of them, while the n-gram hints follow the "
        "order of the text. So a document is helped by others that are decoded only after it, and no decoder can follow; "
        "score.mode=strict orders the same parts so that one can."
    ),
    "documents": (
        "Documents are scored side by side in an order made from the lengths of all of them, which a decoder does not have "
        "before it has the text. So the score leaves out what it would take to tell a decoder these lengths; score.mode=strict "
        "takes the documents in the order of the text, which needs none of them."
    ),
    "early": (
        "With score.adaptation.window_key=last_input, the weights learn from {early:,} targets before these are scored. A "
        "decoder does not have them yet and cannot follow; window_key=first_input and score.mode=strict learn from scored text "
        "alone."
    ),
    "unknown": (
        "Mode as_published keeps to a published order even where the weights learn from targets before these are scored, and "
        "the settings beside this score are not those that it was made with, so they do not tell whether that happened. A "
        "record can be claimed from score.mode=strict alone, which refuses such an order."
    ),
    "none": (
        "With these settings mode as_published changes nothing: every prediction of this pass depends on scored text alone, as "
        "in mode strict. But a record can be claimed from strict alone; score again with score.mode=strict."
    ),
}


def why_not_claimable(mode: str, name: str, targets: int, config: ScoreConfig) -> str:
    """Two sentences on what keeps a score from counting; empty for every mode but ``as_published``.

    Args:
        mode: Mode of the score, from ``score.json``.
        name: Pass that gave it.
        targets: Number of scored targets.
        config: Settings beside the score; they tell nothing where their mode is another one.
    """
    if mode != "as_published":
        return ""
    if name in DOCUMENT_PASSES:
        return REASONS[name]
    if name not in ADAPTIVE_PASSES:
        return REASONS["none"]
    if config.mode != mode:
        return REASONS["unknown"]
    early = early_targets(adapted_plan(targets, config))
    return REASONS["early"].format(early=early) if early else REASONS["none"]
