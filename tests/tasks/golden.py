"""What of a stage's output is pinned: whatever has to be equal on every processor."""

import hashlib
import json
import re
from pathlib import Path

import polars as pl
from safetensors import safe_open

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.fingerprint import canonical
from recalign.evaluation.texts.rows import POPULARITY

KEYS = {  # columns of tables whose other columns depend on trained weights
    "completions.parquet": [],
    "curve.parquet": ["epoch"],
    "facets.parquet": ["texts", "facet"],
    "log.parquet": [],
    "model/curve.parquet": [],
    "per_user.parquet": ["row", "user_index", "lists", "measure", "k"],
    "reasonings.parquet": ["user_index", "sample"],
    "recommended.parquet": ["row"],
    "results.parquet": [
        "row",
        "policy",
        "decoding",
        "recommender",
        "lists",
        "measure",
        "k",
        "base",
        "n_users",
    ],
    "rewards.parquet": ["user_index", "sample"],
    "segments.parquet": ["kind", "segment", "row", "lists", "measure", "k", "base", "n_users"],
    "serving.parquet": ["user_id", "rank", "why_none"],
    "skipped.parquet": [],
    "texts.parquet": ["texts", "n_users", "n_texts"],
}
FIGURES = {  # manifest figures that are compared with a tolerance
    "oracle": ["best_valid_ndcg_at_10", "temperature"],
    "policy": ["held_out_loss"],
    "recommender": ["log_prob_no_text", "log_prob_real"],
    "rewards": ["mean_reward"],
    "alignment": ["held_out_loss_start"],
    "evaluation": ["validation_score"],
}
DIGITS = 5  # to which floats of weight-free tables are rounded


def summary(artifact: Artifact) -> dict:
    """Version, a digest per output file, and the figures of an artifact."""
    manifest = artifact.manifest
    outputs = {name: _digest(_pinned(artifact.path(name), name)) for name in manifest.outputs}
    figures = {name: manifest.figures[name] for name in FIGURES.get(manifest.stage, [])}
    counts = {"rows": manifest.rows} if manifest.stage != "pairs" else {}
    return {"version": manifest.version, "outputs": outputs, "figures": figures | counts}


def moved(old: dict, new: dict, tolerance: float) -> list[str]:
    """The outputs and figures in which two summaries differ."""
    found = [
        name
        for name in sorted(old["outputs"].keys() | new["outputs"].keys())
        if old["outputs"].get(name) != new["outputs"].get(name)
    ]
    for name in sorted(old["figures"].keys() | new["figures"].keys()):
        before, now = old["figures"].get(name), new["figures"].get(name)
        if before is None or now is None or abs(now - before) > tolerance * abs(before):
            found.append(f"{name} ({before} -> {now})")
    return found


def _digest(content: object) -> str:
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:16]


def _pinned(path: Path, name: str) -> object:
    match path.suffix:
        case ".parquet":
            return _table(pl.read_parquet(path), name)
        case ".safetensors":
            with safe_open(path, "np") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
                return {k: [s.get_dtype(), list(s.get_shape())] for k, s in slices.items()}
        case ".html":
            return re.findall(r"<h\d[^>]*>(.*?)</h\d>", path.read_text(), re.DOTALL)
    content = json.loads(path.read_text())
    if name.endswith("tokenizer.json"):
        return content["model"]["vocab"]
    return content if name == "policy.json" else sorted(content)


def _table(table: pl.DataFrame, name: str) -> object:
    """Schema, and all rows; or, where weights decide, the keys and what needs no weights."""
    schema = {column: str(kind) for column, kind in table.schema.items()}
    floats = pl.col(pl.Float32, pl.Float64)
    rounded = table.with_columns(floats.cast(pl.Float64).round(DIGITS))
    if name not in KEYS:
        return [schema, rounded.to_dicts()]
    kept = rounded.select(key for key in KEYS[name] if key in table.columns).to_dicts()
    if "row" in table.columns:
        popularity = rounded.filter(row=POPULARITY)
        if "difference" in table.columns:  # to the oracle's row, which is trained
            popularity = popularity.select("lists", "measure", "k", "mean", "low", "high")
        return [schema, kept, popularity.to_dicts()]
    return [schema, kept]
