"""What a model card tells of a finished run, from manifests and tables alone."""

import re

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.store import Store
from recalign.chain import best_row, chain_of_run, doubt_of_run, name_of_data
from recalign.config import InteractionsConfig
from recalign.evaluation.texts.rows import policy_label
from recalign.export.card import CardFacts
from recalign.interactions.publishers import published
from recalign.llm.published import SMOLLM2
from recalign.llm.published import published as published_llm
from recalign.schemas import RESULTS
from recalign.stored import first_of


def facts_of(
    store: Store, root: str, report: Manifest, made: Artifact, example: str, checked: str
) -> CardFacts:
    """Of the LLM `made` that the run of this report ends with."""
    first = first_of(made, root)
    config, data = first.manifest.config, store.open(report.inputs["interactions"])
    base = str(config.get("model", "")) if config["kind"] == "huggingface" else ""
    if known := published_llm(base):
        base = known.hub_id
    parts = [at for name, at in report.inputs.items() if re.fullmatch(r"alignment_\d+_\d+", name)]
    n_rounds, one = 0, made
    while one.manifest.stage == "alignment":
        n_rounds += one.reference not in parts  # a round's last part has the round's own name
        one = store.open(one.manifest.inputs["start"])
    ingest = InteractionsConfig.model_validate(data.manifest.config)
    name = name_of_data(data.manifest)
    settings = {first.manifest.stage: config, "alignment": made.manifest.config}
    if "aligned" in report.inputs:
        chain = chain_of_run(store, report)
        settings["reasonings"] = chain.asked.identity() | {"template": chain.template}
        method, row = "DPO4Rec (arXiv 2410.05939)", policy_label("aligned", "greedy", "frozen")
    else:
        _, told = best_row(report)
        settings["row"] = {name: told[name] for name in ("strategy", "estimator")}
        method, row = "RosePO (2410.12519)", told["label"]
    read = [role for role in first.manifest.files if not role.startswith("model/")]
    if read:  # templates of a warm-up; of a title model's questions
        settings["files read"] = {role: first.manifest.files[role] for role in read}
    return CardFacts(
        title=f"{base.rpartition('/')[2] or 'small Llama'} aligned on {name}",
        base_model=base,
        data=name,
        data_terms=terms_of(ingest),
        base_licence=_licence(base),
        n_users=data.manifest.figures["users"],
        n_items=data.manifest.figures["items"],
        n_interactions=data.manifest.rows,
        settings=settings,
        results=RESULTS.read(store.open(report.inputs.get("evaluation", report.reference))),
        rounds=f"{n_rounds} round{'s' * (n_rounds != 1)} of {method}",
        row=row,
        doubt=doubt_of_run(store, report),
        how_to_load=example,
        checked=checked,
    )


def terms_of(config: InteractionsConfig) -> str:
    match config.source:
        case "synthetic":
            return "A synthetic world, made by recalign: no terms."
        case "files":
            return "The publisher's own files: whoever passes this model on adds their terms here."
    return published(config).terms


def _licence(base: str) -> str:
    """As the hub's card says it; where it cannot be asked, where to look."""
    if not base:
        return "Apache-2.0, trained from scratch by recalign"
    if base == SMOLLM2.hub_id:
        return SMOLLM2.terms
    from huggingface_hub import ModelCard

    try:
        found = ModelCard.load(base).data.to_dict().get("license")
    except Exception:  # offline, gated, a folder: the card says where to look
        found = None
    return f"{found} (`{base}`)" if found else f"see the card of `{base}`"


def ranker_card(store: Store, report: Manifest, what: str, example: str) -> str:
    """README.md of an exported recommender or oracle."""
    oracle = store.open(report.inputs["oracle"]).manifest
    data = store.open(report.inputs["interactions"]).manifest
    ingest = InteractionsConfig.model_validate(data.config)
    is_oracle = what == "oracle"
    reads = "" if is_oracle else ", and the adapter that lets it read a text about the user"
    valid = oracle.figures["best_valid_ndcg_at_10"]  # None: there was nothing to validate on
    reached = "" if valid is None else f"Validation NDCG@10 of the sequence model: {valid:.4f}."
    seen = "the history windows" + ("" if is_oracle else "; the adapter, the fit windows")
    return "\n".join(
        [
            f"# {what.capitalize()} of a recalign run on {name_of_data(data)}", "",
            f"A sequential recommender over {data.figures['items']:,} items{reads}. It was fitted "
            f"on {seen} of {data.figures['users']:,} users. {terms_of(ingest)}", "",
            "`items.parquet` holds the catalogue: `item_index` (from 1; 0 is padding) is the row "
            "of the weights. `.safetensors` are weights, `.json` sizes and settings.", "",
            "```python", example.strip(), "```", "", *([reached, ""] if reached else []),
        ]
    )  # fmt: skip
