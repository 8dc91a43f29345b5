"""The model card: what was trained on what, how well it does, its terms, and how to load it."""

import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from recalign.metric_columns import CATALOGUE, NDCG_AT_10, RERANKED_NDCG, Metric, told_intervals

SHOWN = (
    NDCG_AT_10,
    Metric(CATALOGUE, "HR", 10),
    Metric("uniform", "HR", 1),
    RERANKED_NDCG,
)


@dataclass(frozen=True)
class CardFacts:
    """What a card tells of a run; `how_to_load` is a runnable example."""

    title: str
    base_model: str
    """Hub id, folder, or "" for weights that were trained from scratch."""
    data: str
    data_terms: str
    base_licence: str
    n_users: int
    n_items: int
    n_interactions: int
    settings: dict[str, dict[str, Any]]
    """Of the stages that decide the model."""
    results: pl.DataFrame
    """RESULTS of the run."""
    rounds: str
    row: str
    """Label of the results that are this model's."""
    doubt: str
    """Why it may be no better than before alignment; empty where validation says that it is."""
    how_to_load: str
    checked: str
    """What was checked when the folder was written."""


def model_card(facts: CardFacts) -> str:
    """README.md of an exported folder, with the hub's metadata at its head."""
    head = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    tags = ["recommender-systems", "preference-optimisation", "recalign"]
    lines = ["---", *(f"{name}: {value}" for name, value in head.items())]
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    on_hub = re.fullmatch(r"\w[\w.-]*/[\w.-]+(?<!\.gguf)", facts.base_model)
    if on_hub and not Path(facts.base_model).exists():
        lines.append(f"base_model: {facts.base_model}")
    lines += ["---", "", f"# {facts.title}", ""]
    based = f"`{facts.base_model}`" if facts.base_model else "a small Llama trained in the same run"
    lines += [
        f"Aligned by recalign {version('recalign')} with what users really did: {based}, "
        f'{facts.rounds}; this model is the row "{facts.row}" of the results below.'
        + (f" Mind: {facts.doubt}." if facts.doubt else ""),
        "", "## Load it", "", "```python", facts.how_to_load.strip(), "```", "", facts.checked, "",
        "## Data", "",
        f"{facts.data}: {facts.n_users:,} users, {facts.n_items:,} items, "
        f"{facts.n_interactions:,} interactions. {facts.data_terms}",
        "", "## Results", "",
        "On the test window, read once by this run; 95 % intervals by bootstrap over users, "
        "differences paired by user.",
        "", *result_table(facts.results, facts.row), "", "## Licences", "",
        f"Base model: {facts.base_licence}. Data: see above; its terms may also bind what is "
        "trained on it. recalign itself: Apache-2.0.",
        "", "## Limits", "",
        "It writes about (or names) items of the catalogue it was trained on, in the format of its "
        "own prompts; elsewhere it is not tested. It may repeat popularity and other biases of the "
        "data, and its texts about a user are guesses from a history: do not show them as facts "
        "about a person. The results hold for the data above and for the recommender of the run.",
        "", "## Settings", "", "```json", json.dumps(facts.settings, indent=1), "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def result_table(results: pl.DataFrame, own: str) -> list[str]:
    """Markdown rows of RESULTS in the first of SHOWN that the model's own row has."""
    shown = next((one for one in SHOWN if own in one.lines(results)["row"]), None)
    if shown is None:
        return ["No metric of the usual ones was computed."]
    lines = [
        f"| row | {shown.label} | 95 % | difference | 95 % | against |",
        "|" + "---|" * 6,
    ]
    for row in shown.lines(told_intervals(results)).iter_rows(named=True):
        interval = bounds = "too few users"
        if row["low"] is not None:
            interval = f"[{row['low']:.4f}, {row['high']:.4f}]"
        if row["difference_low"] is not None:
            bounds = f"[{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]"
        told = ["", "", ""]
        if row["difference"] is not None:
            told = [f"{row['difference']:+.4f}", bounds, row["base"]]
        cells = [row["row"], f"{row['mean']:.4f}", interval, *told]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
