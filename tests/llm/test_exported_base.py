"""The base beside an exported adapter: what a model is read from, nothing else of its folder."""

import pickle
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from recalign.config import PolicyConfig, SamplingConfig
from recalign.export.llm import Base, Greedy, asking_of, save_llm, texts_of_folder
from recalign.llm.load import load_policy
from recalign.llm.local_writer import LocalWriter
from recalign.writer import Asked
from tests.tasks.llama3_folder import save_llama3

LEFT = {
    ".git/config": b"[remote]\nurl = https://me:hf_secret@hub/me/llm",
    ".cache/huggingface/download/config.json.metadata": b"today",
    ".env": b"HF_TOKEN=hf_secret",
    ".secret.json": b"{}",
    "pytorch_model.bin": pickle.dumps("weights"),
    "training_args.bin": pickle.dumps("arguments"),
    "original/consolidated.00.pth": pickle.dumps("weights"),
    "checkpoint-500/optimizer.pt": pickle.dumps("moments"),
    "modeling_own.py": b"print('never run')",
    "curve.parquet": b"PAR1",
}
TAKEN = {
    "LICENSE": b"of the base",
    "NOTICE.txt": b"of the base",
    "USE_POLICY.md": b"of the base",
    "tokenizer.model": b"sentencepiece",
}


def test_an_exported_base_holds_no_pickle_no_code_and_nothing_hidden(tmp_path):
    source, out = tmp_path / "llm", tmp_path / "exported"
    save_llama3(["Heat", "Alien"], source)
    own = {path.name for path in source.iterdir()}
    for name, content in (LEFT | TAKEN).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    policy = load_policy(source, PolicyConfig(kind="huggingface", model=str(source)))
    torch.manual_seed(0)
    adapter = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted: Any = get_peft_model(policy.model, adapter)
    policy = replace(policy, model=adapted)
    asked = Asked(SamplingConfig(max_new_tokens=8), n_samples=0)
    [[written]] = LocalWriter(policy).write(["Alien"], [0], asked)
    out.mkdir()
    save_llm(policy, out, Base(str(source)), Greedy(8, policy.eos_ids), merge=False)
    base = out / "base"
    copied = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}
    assert copied == own | TAKEN.keys()
    assert (base / "LICENSE").read_bytes() == TAKEN["LICENSE"]
    # It is all that transformers and peft need.
    source.rename(tmp_path / "gone")
    assert texts_of_folder(out, asking_of(policy), ["Alien"]) == [written.text.strip()]
