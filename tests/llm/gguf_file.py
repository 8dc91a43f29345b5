"""A tiny model in llama.cpp's format."""

import gguf
import numpy as np
from tokenizers import pre_tokenizers

SPECIAL = ["<s>", "</s>"]
HIDDEN, HEADS = 32, 2


def save_gguf(path, architecture="llama"):
    """A random one-layer Llama with a byte-level tokenizer; its weights have 8 bits."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(1024)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, *[1] * (len(words) - 2)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    generator = np.random.default_rng(0)
    shapes = {"token_embd": (len(words), HIDDEN), "output": (len(words), HIDDEN)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        shapes[f"blk.0.{name}"] = (HIDDEN, HIDDEN)
    for name in ("ffn_gate", "ffn_up", "ffn_down"):
        shapes[f"blk.0.{name}"] = (HIDDEN, HIDDEN)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, shape in shapes.items():
        weights = generator.normal(size=shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
