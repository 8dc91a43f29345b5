"""A random LLM of a published shape as a folder: for speed, weights do not matter.

    python benchmarks/shapes.py 1b FOLDER [--device cuda]

1b and 8b have the sizes of Llama-3.2-1B and Llama-3.1-8B (bfloat16, 2.5 and 16 GB on disk), tiny
is for trying the scripts. Their tokenizer has one token per word, w3 to the end of the vocabulary.
smollm2 is the real one, where `recalign fetch smollm2` has put it.
"""

import argparse
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recalign.llm.convert_gguf import converted
from recalign.llm.published import SMOLLM2, is_gguf, source_of

SHAPES = {  # hidden, intermediate, layers, heads, heads of keys, vocabulary, tied embeddings
    "tiny": (64, 128, 2, 4, 2, 500, True),
    "1b": (2048, 8192, 16, 32, 8, 128_256, True),
    "8b": (4096, 14_336, 32, 32, 8, 128_256, False),
}


def llama_config(shape: str) -> LlamaConfig:
    hidden, intermediate, layers, heads, key_heads, vocabulary, tied = SHAPES[shape]
    return LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=key_heads, vocab_size=vocabulary,
        tie_word_embeddings=tied, max_position_embeddings=8192, pad_token_id=0, bos_token_id=None,
        eos_token_id=1,
    )  # fmt: skip


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token per word."""
    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def save(shape: str, folder: Path, device: str) -> None:
    """Weights are drawn where `device` is: 8b takes minutes on a processor."""
    torch.manual_seed(0)
    config = llama_config(shape)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer_of(config.vocab_size).save_pretrained(folder)


def folder_of(name: str) -> Path:
    """Of a fetched LLM's name, a folder or a GGUF file, which is converted once (float32)."""
    source = source_of(name)
    if not is_gguf(source):
        return Path(source)
    folder = kept_beside(Path(source))
    return converted(Path(source), folder, folder.parent, torch.float32)


def kept_beside(gguf: Path) -> Path:
    """Where a benchmark keeps what it has made of a GGUF file."""
    return gguf.parent.with_suffix(".safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=[*SHAPES, SMOLLM2.name])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.shape in SHAPES:
        save(given.shape, given.folder, given.device)
        return
    bring(Path(source_of(given.shape)), given.folder)


def bring(source: Path, folder: Path) -> None:
    """A copy of a folder, or of what a GGUF file was converted to; converted now if it was not."""
    if folder.exists():
        return
    kept = kept_beside(source) if is_gguf(str(source)) else source
    work = folder.parent / ".work"
    work.mkdir(parents=True, exist_ok=True)
    if not kept.is_dir():
        converted(source, folder, work, torch.float32)
        return
    shutil.copytree(kept, work / folder.name, dirs_exist_ok=True)
    (work / folder.name).rename(folder)  # whole, or not there


if __name__ == "__main__":
    main()
