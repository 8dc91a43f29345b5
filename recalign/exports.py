"""Export of a finished run: which artifacts go into the folder, and what its card says."""

import gc
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
from recalign.llm.storage import StoredPolicy
from recalign.policy import Policy
from recalign.schemas import COMPLETIONS, ITEMS, REASONINGS
from recalign.stored import stored
from recalign.titles.names import distinct_titles
from recalign.user_text import UserText

N_CHECKED = 3  # prompts whose greedy texts are compared


def export_run(
    store: Store, root: str, report: Manifest, folder: Path, what: What, *, merge: bool = False
) -> str:
    """Write a run's policy, recommender or oracle into `folder`; tells what was checked.

    UserError where the folder is there already, the run has no such model, its base is gone, or it
    is quantised and is to be merged: adding to such weights would round the adapter away.
    """
    with new_folder(folder) as draft:
        match what:
            case "policy":
                return _export_policy(store, root, report, draft, merge)
            case "recommender" | "oracle":
                return _export_ranker(store, report, draft, what)


def _export_policy(store: Store, root: str, report: Manifest, folder: Path, merge: bool) -> str:
    from recalign.export.llm import Base, Greedy, asking_of, save_llm, texts_of_folder

    made = store.open(policy_of_run(store, report))
    place = stored(made, root)
    if merge and place.quantised:
        raise UserError("a quantised LLM cannot be merged: export the adapter alone")
    policy = place.load("", trainable=place.adapter is not None)
    asking, asked = asking_of(policy), _asked(store, report, policy)
    closing = policy.sentence_ends() if asked.ends_at == "sentence" else []
    ends = [*policy.eos_ids, *closing]
    completions = COMPLETIONS.read(store.open(made.manifest.inputs["completions"]))
    obeyed = UserText(policy.tokenizer).obeyed
    prompts = prompts_to_check(completions["prompt"], obeyed)
    wanted = _greedy_texts(policy, prompts, asked)
    greedy = Greedy(asked.max_new_tokens, ends)
    base = Base(place.weights, place.held.revision)
    save_llm(policy, folder, base, greedy, merge=merge)
    del policy
    gc.collect()  # one LLM in memory, not two: the exported one is read next
    found = texts_of_folder(folder, asking, prompts, place.held.dtype)
    checked = _checked(place, wanted, found)
    adapter = (folder / "adapter_config.json").is_file()
    example = llm_example(asking, completions["prompt"][0], base if adapter else None)
    facts = facts_of(store, root, report, made, example, checked + warned_of(obeyed))
    (folder / "README.md").write_text(model_card(facts))
    return checked


def prompts_to_check(prompts: pl.Series, obeyed: list[str]) -> list[str]:
    """The first ones that transformers alone reads as recalign does: they spell none of these."""
    plain = [text for text in prompts.unique(maintain_order=True)
             if not any(word in text for word in obeyed)]  # fmt: skip
    return plain[:N_CHECKED]


def warned_of(obeyed: list[str]) -> str:
    """What else the card says where transformers alone obeys some words of a title."""
    if not obeyed:
        return ""
    words = ", ".join(f"`{word}`" for word in obeyed)
    return (
        f" Mind: in a title, the code above takes {words} for control tokens, while recalign reads"
        " letters; the prompts compared hold none of them. Break such words up before asking."
    )


def _checked(place: StoredPolicy, wanted: list[str], found: list[str]) -> str:
    """What the card says of the texts that the exported folder wrote, beside recalign's own."""
    same = sum(one == other for one, other in zip(wanted, found, strict=True))
    told = (
        f"When this folder was written, transformers alone read it and wrote the same greedy texts "
        f"as recalign for {same} of {len(wanted)} prompts of the training data."
    )
    if place.quantised:
        held = place.held.quantisation
        return f"{told} It read the base unquantised; the run held it in {held}, and wrote by that."
    if same < len(wanted) and place.held.dtype == "float32":
        raise RuntimeError(f"the exported folder writes other texts: {wanted} became {found}")
    return told


def _asked(store: Store, report: Manifest, policy: Policy) -> SamplingConfig:
    """How the policy is asked for a text: as in the run, or for a title of any length there is."""
    if "aligned" in report.inputs:
        return chain_of_run(store, report).asked
    from recalign.titles.likelihood import TitleScorer

    titles = distinct_titles(ITEMS.read(store.open(report.inputs["interactions"])))
    title_ids = [[], *(policy.encode_completion(title) for title in titles[1:])]
    longest = TitleScorer(policy, title_ids).n_answer_tokens
    return SamplingConfig().model_copy(update={"max_new_tokens": longest})


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
            logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, -1]
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
