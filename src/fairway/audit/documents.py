"""Passes over documents before the audit: they have an order of coding of their own, and say so."""

from collections.abc import Generator

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fairway.audit.artifact import ArtifactScorer, DrivenSession, NetworkScorer, Recording
from fairway.audit.scorer import Meta
from fairway.config import DOCUMENT_PASSES, PassName, ScoreConfig
from fairway.data.tokenizer import Tokenizer
from fairway.score.codec import decode, encode
from fairway.score.driver import checked_distributions, walk
from fairway.score.lanes import LanePlan, LaneRows, LaneStep, coding_order, cut_rows, reveal_step
from fairway.score.ledger import Ledger
from fairway.score.load import PackedModel
from fairway.score.passes import ScoredText, build_pass
from fairway.score.predictor import Predictor, RevealedText
from fairway.train.machine import Machine


class DocumentScorer(NetworkScorer):
    """A pass over documents as a black box.

    The number of targets and where documents start are declared: the strict order uses of the starts their number alone, the
    published order all of them.
    """

    def prepare(self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta) -> tuple[Predictor, LanePlan]:
        """Predictor and plan; the tokens are for the published order alone, which looks at them beforehand."""
        count = len(tokens) - 1
        text = ScoredText(
            torch.from_numpy(tokens),
            np.zeros(count, dtype=np.uint16),
            torch.tensor([start for start in meta.document_starts if start <= count]),
            partial=False,
        )
        predictor, plan = build_pass(
            self.pass_name,
            self.fresh_network(),
            count,
            self.config,
            documents=len(text.documents),
            text=text if self.config.mode == "as_published" else None,
        )
        assert isinstance(plan, LanePlan)
        return predictor, plan

    def schedule(self, meta: Meta) -> list[Int64[np.ndarray, " group"]]:
        """Entries in the order of coding; a text of the declared documents shows it."""
        tokens = np.zeros(meta.targets + 1, dtype=np.int64)
        tokens[list(meta.document_starts)] = 1
        _, plan = self.prepare(tokens, meta)
        return [np.array([entry]) for entry in coding_order(plan, torch.from_numpy(tokens)).tolist()]

    def score(self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta) -> Float64[np.ndarray, " targets"]:
        """Nats of every target, by the driver."""
        predictor, plan = self.prepare(tokens, meta)
        return self._drive_lanes(predictor, plan, tokens)

    def distributions(
        self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta, targets: Int64[np.ndarray, " probes"]
    ) -> Float64[np.ndarray, "probes vocab"]:
        """What the driver got from the predictor at the given entries, in one walk."""
        predictor, plan = self.prepare(tokens, meta)
        order = coding_order(plan, torch.from_numpy(tokens))
        coded = np.empty_like(order)
        coded[order] = np.arange(len(order))
        recording = Recording(predictor, coded[targets].tolist())
        self._drive_lanes(recording, plan, tokens)
        return np.stack([recording.rows[entry] for entry in coded[targets].tolist()])

    def _drive_lanes(self, predictor: Predictor, plan: LanePlan, tokens: np.ndarray) -> Float64[np.ndarray, " targets"]:
        ledger = Ledger(np.zeros(len(tokens) - 1, dtype=np.uint16))
        walk(predictor, torch.from_numpy(tokens), ledger, plan, windows_per_forward=self.config.windows_per_forward)
        return ledger.nats.astype(np.float64)

    def start(self, first: int, meta: Meta) -> DrivenSession:
        """A walk over text that is told token by token, in the order of coding.

        Raises:
            RecipeError: the published order, which needs the text before it begins.
        """
        blank = np.zeros(meta.targets + 1, dtype=np.int64)
        blank[0] = first
        count = len(meta.document_starts)
        predictor, plan = build_pass(self.pass_name, self.fresh_network(), meta.targets, self.config, documents=count)
        assert isinstance(plan, LanePlan)
        return LaneSession(predictor, plan, blank)

    def code(
        self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta
    ) -> tuple[Int64[np.ndarray, " targets_plus_1"], float, float]:
        """Encode and decode with the package's coder, each with a network of its own."""
        targets, count = len(tokens) - 1, len(meta.document_starts)
        ledger = Ledger(np.zeros(targets, dtype=np.uint16))
        predictor, plan = build_pass(self.pass_name, self.fresh_network(), targets, self.config, documents=count)
        words = encode(predictor, torch.from_numpy(tokens), ledger, plan)
        predictor, plan = build_pass(self.pass_name, self.fresh_network(), targets, self.config, documents=count)
        decoded = decode(predictor, words, int(tokens[0]), targets, plan)
        return decoded.numpy(), 32.0 * len(words), ledger.total_nats


class ArtifactDocumentScorer(DocumentScorer, ArtifactScorer):
    """A pass of an artifact over documents as a black box."""


class LaneSession(DrivenSession):
    """The driver's walk along a lane plan, one target at a time; the unknown rest of a window is zeros."""

    def __init__(self, predictor: Predictor, plan: LanePlan, blank: Int64[np.ndarray, " targets_plus_1"]) -> None:
        """Args: predictor and plan: of one pass. blank: token 0, then zeros for all targets."""
        self._walk = _walk_lanes(predictor, plan, torch.from_numpy(blank))
        self._proposal: np.ndarray = next(self._walk)


def _walk_lanes(predictor: Predictor, plan: LanePlan, tokens: Tensor) -> Generator[np.ndarray, int, None]:
    begin = 0
    for step in plan.steps(lambda row, entry: row.reach(tokens, entry)):
        frontier = begin
        if not isinstance(step, LaneStep):
            predictor.observe(RevealedText(tokens[torch.from_numpy(step.text)], frontier))
            continue
        for number, row in enumerate(step.rows):
            rows, before, done = LaneRows((row,), begin), LaneRows(step.rows[:number], frontier), 0
            while done < row.reach(tokens, begin)[0]:
                batch, _ = cut_rows(tokens, rows, before, frontier, begin + done + 1)
                told = yield checked_distributions(predictor, batch)[0, done].double().cpu().numpy()
                tokens[begin + done + 1] = told
                done += 1
            begin += done
        predictor.observe(reveal_step(tokens.clone(), step, frontier))


def artifact_scorer(
    packed: PackedModel, machine: Machine, config: ScoreConfig, pass_name: PassName, tokenizer: Tokenizer | None = None
) -> ArtifactScorer:
    """A pass of an artifact as a black box; arguments as for `ArtifactScorer`."""
    kind = ArtifactDocumentScorer if pass_name in DOCUMENT_PASSES else ArtifactScorer
    return kind(packed, machine, config, pass_name, tokenizer)
