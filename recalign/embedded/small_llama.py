"""The small Llama: its first weights, and its forward pass over packed rows in training.

The pass gives the numbers of transformers' own (a test holds them together) at about half its
CPU time: projections of one input are one GEMM, attention runs in float32 while the rest runs in
bfloat16 (bfloat16 attention is several times slower on a CPU), and the last layer's queries and
MLP are computed only where a token is predicted.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import LlamaAttention

from recalign.config import BootstrapConfig, SmallLlamaConfig
from recalign.seeding import derive_seed
from recalign.training.packing import IGNORED, PackedBatch, visible

SPREAD = 0.08  # standard deviation of first weights; transformers' .02 learns slower at this width
COPYING = 1.0  # first scale of what attention copies from the tokens it looks at


def llama_settings(
    sizes: SmallLlamaConfig,
    tokenizer: PreTrainedTokenizerBase,
    positions: int,
    spread: float,
) -> LlamaConfig:
    """Of a Llama with tied embeddings, for texts of at most `positions` tokens.

    spread: standard deviation of the first weights.
    """
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        intermediate_size=-(-sizes.hidden * 8 // 3 // 32) * 32,  # SwiGLU's usual 8/3, rounded up
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=positions,
        initializer_range=spread,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def first_model(
    config: BootstrapConfig, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> LlamaForCausalLM:
    """A Llama with tied embeddings whose attention starts as a copy of what it looks at.

    Value and output projections start as each other's transpose (orthogonal, so their product is
    the identity): the mean of the tokens looked at arrives in the residual stream as the bag of
    words it is, from which counting attributes is learned in a few hundred steps.
    """
    settings = llama_settings(config, tokenizer, max_length, SPREAD)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "bootstrap", "weights"))
        model = LlamaForCausalLM(settings)
        for layer in model.model.layers:
            square = torch.linalg.qr(torch.randn(config.hidden, config.hidden))[0]
            with torch.no_grad():
                layer.self_attn.v_proj.weight.copy_(square * COPYING**0.5)
                layer.self_attn.o_proj.weight.copy_(square.T * COPYING**0.5)
    return model


def prediction_loss(model: LlamaForCausalLM, batch: PackedBatch) -> Tensor:
    """Mean cross-entropy of the batch's targets, nats per token."""
    targets = batch.targets.to(model.device)
    wanted = targets != IGNORED
    states = predictor_states(model, batch)[wanted]
    logits = F.linear(states, model.lm_head.weight)
    return F.cross_entropy(logits.float(), targets[wanted])


def predictor_states(model: LlamaForCausalLM, batch: PackedBatch) -> Tensor:
    """Final states [B, W, d] at the columns that predict a target."""
    config, layers, device = model.config, model.model.layers, model.device
    width, eps = config.hidden_size, config.rms_norm_eps
    x = model.model.embed_tokens(batch.input_ids.to(device))  # [B, T, d]
    angles = _angles(model, x, batch.position_ids.to(device))
    sees = _additive(visible(batch.segments.to(device)))  # [B, T, T]
    last = batch.predictors.to(device)[:, :, None]  # [B, W, 1]
    for layer in layers:
        h = F.rms_norm(x, (width,), layer.input_layernorm.weight, eps)
        if layer is layers[-1]:
            x, queried = (t.gather(1, last.expand(-1, -1, width)) for t in (x, h))
            sees = sees.gather(1, last.expand(-1, -1, sees.shape[2]))
            own = tuple(a.gather(1, last[..., None].expand(-1, -1, 1, a.shape[3])) for a in angles)
            x = x + _attention(layer.self_attn, queried, h, own, angles, sees)
        else:
            x = x + _attention(layer.self_attn, h, h, angles, angles, sees)
        h = F.rms_norm(x, (width,), layer.post_attention_layernorm.weight, eps)
        gate, up = _linear(h, layer.mlp.gate_proj, layer.mlp.up_proj).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, layer.mlp.down_proj.weight)
    return F.rms_norm(x, (width,), model.model.norm.weight, eps)


def _linear(x: Tensor, *projections: torch.nn.Linear) -> Tensor:
    """The projections' outputs side by side, by one GEMM."""
    return F.linear(x, torch.cat([projection.weight for projection in projections]))


def _angles(model: LlamaForCausalLM, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, [B, T, 1, head width / 2]."""
    half = model.config.hidden_size // model.config.num_attention_heads // 2
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
    cos, sin = model.model.rotary_emb(x, positions)
    return cos[:, :, None, :half].to(dtype), sin[:, :, None, :half].to(dtype)


def _additive(sees: Tensor) -> Tensor:
    """The mask as it is added to the scores of attention."""
    return torch.zeros(sees.shape, device=sees.device).masked_fill_(~sees, float("-inf"))


def _rotate(x: Tensor, angles: tuple[Tensor, ...]) -> Tensor:
    """Rotary position embedding of [B, T, H, head width]."""
    cos, sin = angles
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def _attention(
    attention: LlamaAttention,
    queried: Tensor,
    h: Tensor,
    query_angles: tuple[Tensor, ...],
    angles: tuple[Tensor, ...],
    sees: Tensor,
) -> Tensor:
    """Attention of `queried` [B, Q, d] over `h` [B, T, d]; sees: additive [B, Q, T]."""
    shape = (len(h), -1, attention.config.num_attention_heads, attention.head_dim)
    if queried is h:
        parts = _linear(h, attention.q_proj, attention.k_proj, attention.v_proj).chunk(3, -1)
        q, k, v = (part.reshape(shape) for part in parts)
    else:
        q = F.linear(queried, attention.q_proj.weight).view(shape)
        parts = _linear(h, attention.k_proj, attention.v_proj).chunk(2, -1)
        k, v = (part.reshape(shape) for part in parts)
    q, k = _rotate(q, query_angles), _rotate(k, angles)
    q, k, v = (t.transpose(1, 2).float() for t in (q, k, v))
    with torch.autocast(h.device.type, enabled=False):
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=sees[:, None])
    return F.linear(mixed.transpose(1, 2).flatten(2), attention.o_proj.weight)
