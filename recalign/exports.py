"""Export of a finished run: which artifacts go into the folder, and what its card says."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from recalign.artifacts.manifest import Manifest
from recalign.artifacts.store import Store
from recalign.card_facts import facts_of, ranker_card
from recalign.chain import chain_of_run, policy_of_run
from recalign.config import SamplingConfig
from recalign.errors import UserError
from recalign.export.card import model_card
from recalign.export.examples import ORACLE, RECOMMENDER, llm_example
from recalign.export.place import What, new_folder
from recalign.policy import Policy
from recalign.schemas import COMPLETIONS, ITEMS, REASONINGS
from recalign.stored import stored

N_CHECKED = 3  # prompts whose greedy texts are compared


def export_run(
    store: Store, root: str, report: Manifest, folder: Path, what: What, *, merge: bool = False
) -> str:
    """Write a run's policy, recommender or oracle into `folder`; tells what was checked.

    UserError where the folder is there already, the run has no such model, or its base is gone.
    """
    with new_folder(folder) as draft:
        match what:
            case "policy":
                return _export_policy(store, root, report, draft, merge)
            case "recommender" | "oracle":
                return _export_ranker(store, report, draft, what)


def _export_policy(store: Store, root: str, report: Manifest, folder: Path, merge: bool) -> str:
    from recalign.export.llm import BASE, Greedy, asking_of, save_llm, texts_of_folder

    made = store.open(policy_of_run(store, report))
    place = stored(made, root)
    policy = place.load("cpu", trainable=place.adapter is not None)
    asking, asked = asking_of(policy), _asked(store, report)
    closing = policy.sentence_ends() if asked.ends_at == "sentence" else []
    ends = [*policy.eos_ids, *closing]
    completions = COMPLETIONS.read(store.open(made.manifest.inputs["completions"]))
    prompts = completions["prompt"].unique(maintain_order=True).head(N_CHECKED).to_list()
    wanted = _greedy_texts(policy, prompts, asked)
    greedy = Greedy(asked.max_new_tokens, ends)
    save_llm(policy, folder, place.weights, greedy, merge=merge)
    found = texts_of_folder(folder, asking, prompts, place.held.dtype)
    same = sum(one == other for one, other in zip(wanted, found, strict=True))
    checked = (
        f"When this folder was written, transformers alone read it and wrote the same greedy texts "
        f"as recalign for {same} of {len(prompts)} prompts of the training data."
    )
    if same < len(prompts) and place.held.dtype == "float32":
        raise RuntimeError(f"the exported folder writes other texts: {wanted} became {found}")
    adapter = (folder / "adapter_config.json").is_file()
    base = BASE if (folder / BASE).is_dir() else str(place.weights)
    example = llm_example(asking, prompts[0], adapter=adapter, base=base)
    (folder / "README.md").write_text(
        model_card(facts_of(store, root, report, made, example, checked))
    )
    return checked


def _asked(store: Store, report: Manifest) -> SamplingConfig:
    """How the policy is asked for a text: as in the run, or for a title."""
    return chain_of_run(store, report).asked if "aligned" in report.inputs else SamplingConfig()


def _greedy_texts(policy: Policy, prompts: list[str], asked: SamplingConfig) -> list[str]:
    """What recalign itself writes: its own decoder for texts, the model's arg-max for titles."""
    from recalign.llm.local_writer import LocalWriter
    from recalign.writer import Asked

    if policy.lines:
        return [_title(policy, prompt, asked.max_new_tokens) for prompt in prompts]
    wanted = Asked(asked, n_samples=0)
    groups = LocalWriter(policy).write(prompts, list(range(len(prompts))), wanted)
    texts = {one.user: one.text.strip() for group in groups for one in group}
    return [texts[number] for number in range(len(prompts))]


def _title(policy: Policy, prompt: str, n_tokens: int) -> str:
    import torch

    ids = policy.encode_prompt(prompt)
    model: Any = policy.model
    for _ in range(n_tokens):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] in policy.eos_ids:
            break
    return policy.decode(ids[len(policy.encode_prompt(prompt)) :]).strip()


def _export_ranker(store: Store, report: Manifest, folder: Path, what: What) -> str:
    """Weights and settings as they lie in the artifacts, the catalogue, and how to load them."""
    if what == "recommender" and "aligned" not in report.inputs:
        raise UserError(f"{report.reference.name} is of RosePO, which has no recommender of texts")
    oracle = store.open(report.inputs["oracle"])
    files = [oracle.path(name) for name in ("oracle.safetensors", "oracle.json")]
    example = ORACLE
    if what == "recommender":
        chain = chain_of_run(store, report).for_catalogue()
        reader = store.open(chain.recommender)
        files += [reader.path(f"recommender.{kind}") for kind in ("safetensors", "json")]
        texts = REASONINGS.read(store.open(report.inputs["aligned"]))
        text = texts.filter(pl.col("malformed").is_null())["reasoning"].first() or ""
        encoder = reader.manifest.config["encoder"]
        example = RECOMMENDER.format(text=text, encoder=encoder)
    files.append(store.open(report.inputs["interactions"]).path(ITEMS.file))
    for file in files:
        shutil.copyfile(file, folder / file.name)
    (folder / "README.md").write_text(ranker_card(store, report, what, example))
    return f"{len(files)} files: " + ", ".join(file.name for file in files)
