"""Which parts of the package a bundle has stand-ins for, and which it leaves out. Imports nothing."""

STAND_INS = {
    "fairway.train.metrics.Metrics": "fairway.bundle.stand_ins.NoMetrics",
    "fairway.train.loop._save": "fairway.bundle.stand_ins.nothing",
    "fairway.walk._describe": "fairway.bundle.stand_ins.nothing",
    "fairway.walk._prepare_folder": "fairway.bundle.stand_ins.nothing",
    "fairway.walk._embedded_data": "fairway.bundle.stand_ins.nothing",
    "fairway.stages._drop_evidence": "fairway.bundle.stand_ins.nothing",
    "fairway.stages._tensor_table": "fairway.bundle.stand_ins.no_table",
    "fairway.artifact.bundle.write_bundle": "fairway.bundle.stand_ins.nothing",
    "fairway.artifact.budget.measure": "fairway.bundle.stand_ins.file_budget",
    "fairway.score.load.load_packed": "fairway.bundle.stand_ins.load_own",
    "fairway.data.manifest.parse_manifest": "fairway.bundle.stand_ins.trusted_manifest",
    "fairway.kernels.native.native_source": "fairway.bundle.stand_ins.source_in_cache",
    "fairway.kernels.native.native_or_none": "fairway.bundle.stand_ins.native_required",
}
"""What the package has -> what a bundle has."""

LEFT_OUT = frozenset({"event"})
"""Methods whose calls are left out with their arguments: those of `Metrics`, which nothing reads."""

ABSENT = (
    "fairway.data.tokenizer.Tokenizer.encode",
    "fairway.data.tokenizer.Tokenizer.decode",
    "fairway.data.tokenizer.Tokenizer.__repr__",
)
"""Methods that a bundle does without: it trains and scores on token ids, and never meets their text."""

TRUSTED = (
    "fairway.artifact.arrays", "fairway.artifact.container", "fairway.artifact.entropy", "fairway.artifact.manifest",
    "fairway.artifact.records", "fairway.artifact.streams", "fairway.artifact.tables", "fairway.artifact.wire",
    "fairway.artifact.adapter", "fairway.artifact.ans", "fairway.artifact.frequencies", "fairway.quant.types",
    "fairway.quant.gptq", "fairway.optim.muon", "fairway.score.lanes", "fairway.data.packed_documents", "fairway.base.cover",
    "fairway.quant.plan", "fairway.quant.protect", "fairway.model.roles", "fairway.model.schedule", "fairway.optim.banks",
    "fairway.score.lane_plans", "fairway.score.plan", "fairway.data.prefetch",
)  # fmt: skip
"""Modules whose checks a bundle leaves out: they look at what the program itself has made, or at the inside of an artifact
whose checksum was verified before. Prefix, length and checksum of an artifact, and the data, are checked as in the package."""

TERSE = (
    "fairway.kernels.attention.choice", "fairway.kernels.attention.flash", "fairway.kernels.fused", "fairway.train.machine",
    "fairway.artifact.wire", "fairway.base.files",
)  # fmt: skip
"""Modules whose sentences, the reasons for choices in the log, become one word."""
