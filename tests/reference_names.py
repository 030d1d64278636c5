"""Names of the challenge's checkpoints and ours: a pure renaming, both for tensors per layer and for banks."""

import torch
from torch import Tensor

PER_LAYER = {
    "attn.c_q.weight": "attention.query.weight",
    "attn.c_k.weight": "attention.key.weight",
    "attn.c_v.weight": "attention.value.weight",
    "attn.proj.weight": "attention.output.weight",
    "mlp.fc.weight": "mlp.up.weight",
    "mlp.proj.weight": "mlp.down.weight",
    "attn_scale": "attention_scale",
    "mlp_scale": "mlp_scale",
    "resid_mix": "residual_mix",
    "attn.q_gain": "attention.query_gain",
    "attn.attn_gate_w": "attention.gate",
}
WHOLE = {
    "tok_emb.weight": "embedding.weight",
    "skip_weights": "skips.weight",
    "skip_gates": "skips.gate",
    "lane_merge": "residual.balance",
    "parallel_post_lambdas": "residual.write_weight",
    "parallel_resid_lambdas": "residual.keep_weight",
    "smear_gate.weight": "smear.weight",
    "smear_lambda": "smear.strength",
    "softcap_pos": "softcaps.positive",
    "softcap_neg": "softcaps.negative",
}
BANKS = {
    "qo_bank": ("attention.query.weight", "attention.output.weight"),
    "kv_bank": ("attention.key.weight", "attention.value.weight"),
    "mlp_up_bank": ("mlp.up.weight",),
    "mlp_down_bank": ("mlp.down.weight",),
}


def fairway_name(key: str) -> str:
    """Our name of the reference's ``key`` (any name except a bank's)."""
    if key in WHOLE:
        return WHOLE[key]
    _, layer, rest = key.split(".", 2)
    return f"blocks.{layer}.{PER_LAYER[rest]}"


def to_fairway(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename a reference checkpoint, banked or not; float16 storage becomes float32, values are unchanged."""
    renamed = {}
    for key, tensor in state.items():
        values = tensor.float() if tensor.dtype == torch.float16 else tensor
        if key in BANKS:
            for index, matrix in enumerate(values):
                part, layer = divmod(index, layers)
                renamed[f"blocks.{layer}.{BANKS[key][part]}"] = matrix
        else:
            renamed[fairway_name(key)] = values
    return renamed
