"""Stage sft: the LLM learns to answer with the next title."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import local_files
from recalign.config import LoadedModelConfig, SftConfig
from recalign.llm.storage import MODEL, SFT, TEMPLATES, trained_part
from recalign.policy import Policy, in_lines
from recalign.schemas import CURVE_FILE, PROMPTS
from recalign.sft.examples import Asking, Examples, history_examples, next_item_examples
from recalign.sft.questions import (
    draw_candidates,
    drawn_positions,
    drawn_windows,
    positions_from,
    title_windows,
)
from recalign.splits.guard import check_window_prompts
from recalign.splits.phases import phase_of
from recalign.titles.names import distinct_titles
from recalign.titles.prompts import TitlePrompts, template_file
from recalign.titles.trie import catalogue_of
from recalign.training.run import TrainingRun
from tasks.encoding import item_vectors
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.models import first_weights, model_files, resolved
from tasks.tables import Tables, read_tables


def sft_files(config: SftConfig) -> dict[str, list[Path]]:
    """What decides the LLM beside its config: the questions' template, a local model."""
    asked = config.format == "candidates"
    template = {"template": [template_file(config.template)]} if asked else {}
    if config.kind == "huggingface":
        return template | model_files(config)
    embedded = config.bootstrap
    return template | (local_files("encoder", embedded.encoder) if embedded.item_text else {})


@stage(version=2, trains=True)
def sft(
    job: Job,
    config: SftConfig,
    interactions: Artifact,
    splits: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Train on the history windows, with early stopping on the next items of validation.

    An LLM that later stages could not score titles with is refused before.
    """
    from recalign.sft.train import train_sft  # slow: not in a plan

    tables = read_tables(interactions, splits)
    titles = distinct_titles(tables.items)
    config, policy = _first_policy(job, config, tables, titles)
    _check_titles(config, policy, titles)
    prompts = TitlePrompts(config.prompt, titles)
    asking = Asking(prompts.text, titles, policy.encode_prompt, policy.encode_completion)
    train = _training(config, tables, asking).no_longer_than(config.max_length)
    valid, proved = _validation(config, tables, asking)
    if config.kind == "huggingface":  # the embedded one is made for its prompts
        _check_room(config, policy, tables, asking, valid)
    valid = valid.no_longer_than(config.max_length)
    for name, examples in (("training", train), ("validation", valid)):
        examples.tell_too_long(name, config.max_length)
    work, folder = job.draft.work / "training", job.draft.path(trained_part(config.method))
    run = TrainingRun(
        "sft", work, folder, job.progress, job.device, report_to=job.runtime.report_to
    )
    tuned = train_sft(policy, train, valid, config, run)
    if not job.leads:
        return
    job.draft.path(SFT).write_text(config.model_dump_json(indent=1))
    if config.format == "candidates":  # asked again wherever its file is by then
        question = template_file(config.template)
        shutil.copyfile(question, job.draft.path(f"{TEMPLATES}/{question.name}"))
    tuned.log.write_parquet(job.draft.path(CURVE_FILE), compression="zstd")
    left_out = {"too long": train.left_out, "validation too long": valid.left_out}
    if train.not_drawn:
        left_out["over_max_windows"] = train.not_drawn
    job.draft.count(len(train), left_out)
    job.draft.tell(tuned.figures | {"prompts_proved": proved})


def _check_titles(config: SftConfig, policy: Policy, titles: list[str]) -> None:
    """UserError for an LLM that alignment cannot train, or that cannot tell titles apart."""
    from recalign.alignment.support import check_policy

    if config.kind == "huggingface":
        check_policy(policy)
    if config.format == "history":  # which ranks the whole catalogue
        catalogue_of([[], *map(policy.encode_completion, titles[1:])], titles)


def _check_room(
    config: SftConfig, policy: Policy, tables: Tables, asking: Asking, valid: Examples
) -> None:
    """UserError for an LLM without room for what it will be asked in the test.

    A history's prompts in the test are known here: they end where the test begins. Lists are not;
    those of validation stand for them, without the longest tenth, which the test may not reach.
    """
    from recalign.titles.likelihood import TitleScorer  # slow: not in a plan

    if config.format == "history":
        asked = phase_of(tables.windows, "test")
        starts = np.maximum(asked.starts - config.history_items, 0)
        shown = tables.sequences.slices(asked.users, starts, asked.starts)
        longest = max((len(asking.prompt(items.tolist())) for items in shown), default=1)
    else:
        longest = int(np.quantile(valid.first or [1], 0.9, method="lower"))
    title_ids = [[], *map(asking.answer, range(1, len(asking.titles)))]
    TitleScorer(policy, title_ids).require_room(longest)


def _first_policy(
    job: Job, config: SftConfig, tables: Tables, titles: list[str]
) -> tuple[SftConfig, Policy]:
    """The LLM before any training, and the settings with the commit that its name stands for."""
    from recalign.embedded.first_title_model import first_model
    from recalign.embedded.title_tokenizer import title_tokenizer
    from recalign.llm.load import load_policy

    if config.kind == "huggingface":
        config = resolved(job, config)
        adapted = config.method == "lora"  # the adapter stands on the converted weights
        folder = job.draft.path(MODEL) if adapted else job.draft.work / "first"
        loaded = load_policy(first_weights(job, config, folder), config, None, job.device)
    else:
        tokenizer = title_tokenizer(titles)
        own = config.bootstrap
        vectors = item_vectors(job, own.encoder, tables.items) if own.item_text else None
        model = first_model(own, tokenizer, config.history_items, config.seed, vectors)
        first = job.draft.work / f"first-{job.rank}"  # all write at once, and read what they wrote
        model.save_pretrained(first)
        tokenizer.save_pretrained(first)
        loaded = load_policy(first, LoadedModelConfig(), None, job.device)
    return config, in_lines(loaded) if config.format == "history" else loaded


def _training(config: SftConfig, tables: Tables, asking: Asking) -> Examples:
    """From the history windows alone, which is proved."""
    seen = tables.before("sft", tables.windows["fit_start"].to_numpy())
    if config.format == "history":
        windows = title_windows(seen.lengths, config.history_items)
        drawn = drawn_windows(windows, config.max_windows, config.seed)
        return history_examples(seen, drawn, asking, not_drawn=len(windows) - len(drawn))
    users, positions = drawn_positions(seen.lengths, config.n_examples, config.seed)
    candidates = draw_candidates(seen, users, positions, config.n_candidates, config.seed)
    return next_item_examples(seen, users, positions, candidates, asking)


def _validation(config: SftConfig, tables: Tables, asking: Asking) -> tuple[Examples, int]:
    """Next items of the validation window, each behind what came before it: proved, and counted."""
    phase = phase_of(tables.windows, "valid")
    rows, positions = positions_from(phase.starts, phase.ends, config.n_valid)
    users = phase.users[rows]
    candidates: list[list[int]] = [[] for _ in users]
    if config.format == "candidates":
        candidates = draw_candidates(
            tables.sequences, users, positions, config.n_candidates, config.seed
        )
    first = np.maximum(positions - config.history_items, 0)
    shown = [items.tolist() for items in tables.sequences.slices(users, first, positions)]
    texts = [asking.text(*pair) for pair in zip(shown, candidates, strict=True)]
    prompts = pl.DataFrame([users, positions, first, shown, texts], schema=PROMPTS)
    proved = check_window_prompts(
        prompts,
        tables.interactions,
        tables.windows,
        ("valid_start", "test_start"),
        lambda row, items: asking.text(items, candidates[row]),
        protocol=tables.protocol,
    )
    examples = next_item_examples(tables.sequences, users, positions, candidates, asking)
    return examples, proved
