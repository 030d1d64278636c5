"""Our artifacts as scorers of the audit: a fresh network per call, and the driver's own walk over any tokens."""

import copy
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from fairway.audit.scorer import Meta, SideInformation
from fairway.base.values import with_fields
from fairway.config import ADAPTIVE_PASSES, DOCUMENT_PASSES, ModelConfig, PassName, ScoreConfig
from fairway.data.tokenizer import Tokenizer
from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from fairway.score.codec import decode, encode
from fairway.score.driver import checked_distributions, cut, score, scored_inputs
from fairway.score.ledger import Ledger
from fairway.score.load import PackedModel
from fairway.score.passes import build_pass
from fairway.score.plan import Block
from fairway.score.predictor import Predictor, Revealed, WindowBatch
from fairway.train.machine import Machine

MATCHED_SCALE = 1e-3
"""Root mean square of the embedding of a network whose predictions are all but uniform; above the floor of its norms."""

NOISE = 0.2
"""Deviation added to every weight of a `perturbed` network."""

SMALL_SCALE_RATES = {"sgd": 0.1, "adamw": 0.02}
"""Peak step sizes of the adaptation in networks of a few thousand weights, by optimizer."""

LONGEST_CONTEXT = 6
"""Tokens; a third of a phrase of the streams of logic tests."""

DOCUMENT_RATE = 0.02
"""Step size of adapters in such networks."""


class NetworkScorer:
    """A pass of a network as a black box.

    Every call copies a network that is itself never run, so nothing survives from call to call.
    """

    def __init__(
        self, name: str, make: Callable[[], GPT], config: ScoreConfig, pass_name: PassName, tokenizer: Tokenizer | None = None
    ) -> None:
        """Describe the pass.

        Args:
            name: Name in tables.
            make: A fresh network at every call.
            config: Geometry and adaptation.
            pass_name: plain, sliding, adapted or tilted; passes over documents are those of ``audit/documents.py``.
            tokenizer: For the tilt's word experts.
        """
        self.name, self.fresh_network, self.config, self._tokenizer = name, make, config, tokenizer
        self.pass_name: PassName = pass_name
        model = make()
        self.vocab_size, self.parameters = model.config.vocab_size, sum(tensor.numel() for tensor in model.parameters())
        self.declares = side_information(pass_name)

    def build(self, targets: int, told: int) -> tuple[Predictor, list[Block]]:
        """Predictor of a text that is said to have ``told`` targets, and the plan of the ``targets`` that are there."""
        model = self.fresh_network()
        predictor, plan = build_pass(self.pass_name, model, told, self.config, tokenizer=self._tokenizer)
        if told != targets:
            _, plan = build_pass(self.pass_name, model, targets, self.config, tokenizer=self._tokenizer)
        assert isinstance(plan, list), "lane plans are for DocumentScorer"
        return predictor, plan

    def score(self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta) -> Float64[np.ndarray, " targets"]:
        """Nats of every target, by the driver."""
        predictor, plan = self.build(len(tokens) - 1, meta.targets)
        return self._drive(predictor, plan, tokens)

    def distributions(
        self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta, targets: Int64[np.ndarray, " probes"]
    ) -> Float64[np.ndarray, "probes vocab"]:
        """What the driver got from the predictor at the given entries, in one walk."""
        predictor, plan = self.build(len(tokens) - 1, meta.targets)
        recording = Recording(predictor, targets.tolist())
        self._drive(recording, plan, tokens)
        return np.stack([recording.rows[entry] for entry in targets.tolist()])

    def _drive(self, predictor: Predictor, plan: list[Block], tokens: np.ndarray) -> Float64[np.ndarray, " targets"]:
        ledger = Ledger(np.zeros(len(tokens) - 1, dtype=np.uint16))
        strict = self.config.mode == "strict"
        text = torch.from_numpy(tokens)
        score(predictor, text, ledger, plan, windows_per_forward=self.config.windows_per_forward, strict=strict)
        return ledger.nats.astype(np.float64)

    def start(self, first: int, meta: Meta) -> "DrivenSession":
        """A walk over text that is told token by token."""
        predictor, plan = self.build(meta.targets, meta.targets)
        return DrivenSession(predictor, plan, first, meta.targets)

    def code(
        self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta
    ) -> tuple[Int64[np.ndarray, " targets_plus_1"], float, float]:
        """Encode and decode with the package's coder, each with a network of its own."""
        targets = len(tokens) - 1
        ledger = Ledger(np.zeros(targets, dtype=np.uint16))
        predictor, plan = self.build(targets, meta.targets)
        words = encode(predictor, torch.from_numpy(tokens), ledger, plan)
        predictor, plan = self.build(targets, meta.targets)
        decoded = decode(predictor, words, int(tokens[0]), targets, plan)
        return decoded.numpy(), 32.0 * len(words), ledger.total_nats

    def miniature(self, vocab_size: int) -> "NetworkScorer":
        """The same pass over few tokens: an untrained network of this shape, windows of four, chunks of four."""
        model = perturbed(replace(self.fresh_network().config, vocab_size=vocab_size))
        return _network_kind(self)(f"{self.name}, miniature", _copies(model), small_scale(self.config, 4), self.pass_name)

    def matched(self, vocab_size: int, context: int = 32) -> "NetworkScorer":
        """The miniature with predictions that are all but uniform until something is learnt from the text."""
        model = self.miniature(vocab_size).fresh_network()
        weight = model.embedding.weight.data
        weight *= MATCHED_SCALE / weight.square().mean().sqrt()
        config = small_scale(self.config, context)
        return _network_kind(self)(f"{self.name}, uniform", _copies(model), config, self.pass_name)


class ArtifactScorer(NetworkScorer):
    """A pass of an artifact as a black box."""

    def __init__(
        self,
        packed: PackedModel,
        machine: Machine,
        config: ScoreConfig,
        pass_name: PassName,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Unpack the network once; every call copies it.

        Args:
            packed: The artifact.
            machine: Where to compute.
            config: Geometry and adaptation; `logic_scale` makes the artifact's own small enough for many runs.
            pass_name: plain, sliding, adapted or tilted.
            tokenizer: For the tilt's word experts; by default the one that the artifact carries.
        """
        carried = packed.tokenizer
        tokenizer = tokenizer or (Tokenizer(carried) if carried is not None else None)
        super().__init__(f"{packed.path.name} {pass_name}", _copies(packed.build(machine)), config, pass_name, tokenizer)
        self.packed = packed


def side_information(pass_name: PassName) -> frozenset[SideInformation]:
    """What a pass may know besides the text coded so far."""
    if pass_name in DOCUMENT_PASSES:
        return frozenset({"targets", "documents"})
    return frozenset({"targets"}) if pass_name in ADAPTIVE_PASSES else frozenset()


def _network_kind(scorer: NetworkScorer) -> type[NetworkScorer]:
    """The class that shows the scorer's pass for any network: of an artifact's, the one that it extends."""
    kinds = [kind for kind in type(scorer).__mro__ if issubclass(kind, NetworkScorer) and not issubclass(kind, ArtifactScorer)]
    return kinds[0]


def _copies(model: GPT) -> Callable[[], GPT]:
    return lambda: copy.deepcopy(model)


def perturbed(config: ModelConfig, seed: int = 0, noise_seed: int = 1) -> GPT:
    """An untrained network that predicts something: a fresh one is all but uniform, which would hide what it looks at.

    Args:
        config: The network.
        seed: Of the initial weights.
        noise_seed: Of what is added to them.
    """
    model = GPT(config)
    initialize(model, seed)
    generator = torch.Generator().manual_seed(noise_seed)
    for parameter in model.parameters():
        parameter.data += NOISE * torch.randn(parameter.shape, generator=generator)
    return model


def logic_scale(config: ScoreConfig, context: int = 64, chunk: int = 128) -> ScoreConfig:
    """The same pass with short windows and chunks, so that a few hundred targets cross several adaptation steps.

    Stride keeps its share of the context, and divides context and chunk as it did, or not: which targets share a window
    with the next chunk depends on that, and with it whether the last input may be a window's key. Steps hold at most two rows.
    Contexts of the tilt are no longer than `LONGEST_CONTEXT`: longer ones seldom come back, and the tilt would be silent.
    """
    share = config.stride * context / config.context
    stride = max(1, round(share))
    if config.context % config.stride == 0:
        stride = min((part for part in range(1, context + 1) if context % part == 0), key=lambda part: abs(part - share))
    if config.adaptation.chunk_tokens % config.stride == 0:
        chunk -= chunk % stride
    elif chunk % stride == 0:
        chunk += 1
    changes = {
        "context": context,
        "stride": stride,
        "keep_tail": True,
        "packed_tokens": min(2 * context, config.packed_tokens),
        "max_tokens": 0,
        "adaptation.chunk_tokens": max(chunk, context),
        "adaptation.sequences_per_step": min(2, config.adaptation.sequences_per_step),
        "tilt.contexts": _short_contexts(config.tilt.contexts),
        "documents.lanes": min(2, config.documents.lanes),
        "documents.chunk_sizes": (max(1, context // 8), max(1, context // 4)),
        "documents.chunk_limits": (max(1, context // 4),),
        "documents.rank": min(4, config.documents.rank),
        "documents.alpha": config.documents.alpha * min(4, config.documents.rank) / config.documents.rank,
        "documents.prefix_documents": min(3, config.documents.prefix_documents),
        "documents.phases": min(1, config.documents.phases),
        "documents.global_context": max(1, context // 4),
        "documents.global_chunk_tokens": max(1, context // 2),
    }
    return with_fields(config, changes)


def _short_contexts(contexts: tuple[int, ...]) -> tuple[int, ...]:
    """As many contexts, one token apart, where the longest is too long."""
    first = max(1, LONGEST_CONTEXT + 1 - len(contexts))
    return contexts if max(contexts) <= LONGEST_CONTEXT else tuple(range(first, first + len(contexts)))


def small_scale(config: ScoreConfig, context: int) -> ScoreConfig:
    """Windows of ``context``, chunks as long, and contexts of the tilt short enough to be met again in a few targets.

    Steps are long enough to be seen after one chunk: AdamW moves every weight by about the rate, SGD by far less.
    """
    small = logic_scale(config, context, context)
    rate = SMALL_SCALE_RATES[config.adaptation.optimizer]
    tilt = {
        "tilt.contexts": (1,),
        "tilt.thresholds": (0.5,),
        "tilt.minimum_counts": (1,),
        "tilt.within_word_strength": 0.0,
        "tilt.word_start_strength": 0.0,
        "tilt.agreement": 0.0,
    }
    documents = {
        "documents.prefix_documents": min(1, config.documents.prefix_documents),
        "documents.lanes": 1,
        "documents.learning_rate": DOCUMENT_RATE,
        "documents.global_learning_rate": SMALL_SCALE_RATES["sgd"],
        "documents.global_context": 1,
        "documents.global_chunk_tokens": 1,
    }
    rates = {"adaptation.learning_rate": rate, "stride": max(1, context // 2)}
    return with_fields(small, {**tilt, **documents, **rates})


class Recording:
    """A predictor that keeps what it says at some entries."""

    def __init__(self, inner: Predictor, entries: Sequence[int]) -> None:
        """Args: inner: What is asked. entries: Inputs whose distributions are kept."""
        self._inner, self._wanted = inner, frozenset(entries)
        self.rows: dict[int, Float64[np.ndarray, " vocab"]] = {}

    @property
    def vocab_size(self) -> int:
        """Entries of a distribution."""
        return self._inner.vocab_size

    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """What the inner predictor says."""
        found = self._inner.predict(batch)
        first = batch.starts + batch.first_scored
        for row, begin in enumerate(first.tolist()):
            for entry in self._wanted & set(range(begin, begin + found.shape[1])):
                self.rows[entry] = found[row, entry - begin].double().cpu().numpy()
        return found

    def observe(self, block: Revealed) -> None:
        """Hand the block on."""
        self._inner.observe(block)


class DrivenSession:
    """The driver's walk, one target at a time, over tokens that come from outside; the unknown rest of a window is zeros."""

    def __init__(self, predictor: Predictor, plan: list[Block], first: int, targets: int) -> None:
        """Args: predictor and plan: of one pass. first: token 0. targets: number of targets of the plan."""
        self._tokens = torch.zeros(targets + 1, dtype=torch.int64)
        self._tokens[0] = first
        self._walk = _walk(predictor, plan, self._tokens)
        self._proposal: np.ndarray = next(self._walk)

    def propose(self) -> Float64[np.ndarray, " vocab"]:
        """Natural-log probabilities of the next target."""
        return self._proposal.copy()

    def reveal(self, token: int) -> None:
        """Tell the target; after the last there is nothing to propose."""
        try:
            self._proposal = self._walk.send(token)
        except StopIteration:
            self._proposal = np.zeros(0)


def _walk(predictor: Predictor, plan: list[Block], tokens: Tensor) -> Generator[np.ndarray, int, None]:
    frontier = 0
    for block in plan:
        for windows in block.windows.uniform_runs(1):
            for column, entry in enumerate(scored_inputs(windows).tolist()):
                # A prediction gets the text that is coded and no more; beyond it the window holds zeros.
                batch = cut(tokens, windows, frontier, entry + 1)
                tokens[entry + 1] = yield checked_distributions(predictor, batch)[0, column].double().cpu().numpy()
        begin, end = block.reveal
        predictor.observe(Revealed(tokens[begin : end + 1].clone(), begin))
        frontier = end
