"""Stage policy: the LLM before alignment, trained from scratch or named."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recalign.artifacts.artifact import Artifact
from recalign.config import AnswersConfig, PolicyConfig, WarmUpConfig
from recalign.embedded.demonstrations import (
    build_demonstrations,
    choose_histories,
    choose_prefixes,
)
from recalign.errors import UserError
from recalign.llm.storage import ADAPTER, MODEL, POLICY, POLICY_CURVE
from recalign.parquet import read_parquet
from recalign.policy import Policy
from recalign.reasonings.prompts import Renderer, template_file
from recalign.reasonings.questions import questions_of
from recalign.reasonings.texts import check_text
from recalign.report.plots import bootstrap_curve
from recalign.report.stage_page import picture
from recalign.schemas import CURVE_FILE
from recalign.sft.examples import Examples
from recalign.training.run import TrainingRun
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.models import first_weights, model_files, resolved
from tasks.rule_texts import liked_values
from tasks.tables import Tables, read_tables

MIN_PREFIX = 3  # items a demonstration's history has at least


def policy_files(config: PolicyConfig) -> dict[str, list[Path]]:
    """What decides policy 0 beside its config: templates of what it is taught, a local model."""
    if config.kind == "bootstrap":
        return {"template": [template_file(config.bootstrap.template)]}
    warm_up, files = config.warm_up, model_files(config)
    if warm_up.n_prompts:
        files |= {"template": [template_file(warm_up.template)]}
        files |= {"text": [template_file(warm_up.text)]}
    return files


@stage(version=1)
def policy(
    job: Job,
    config: PolicyConfig,
    interactions: Artifact,
    splits: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Train the embedded LLM on demonstrations, or convert the named LLM and warm it up.

    An LLM that alignment could not train is refused here.
    """
    from recalign.alignment.support import check_policy
    from recalign.llm.load import load_policy  # slow: not in a plan

    if config.kind == "bootstrap":
        _bootstrap(job, config, interactions, splits)
    else:
        config = resolved(job, config)
        warm_up = config.warm_up.n_prompts > 0
        folder = job.draft.work / "first" if warm_up else job.draft.path(MODEL)
        opened = load_policy(first_weights(job, config, folder), config, None, job.device)
        check_policy(opened)
        if warm_up:
            _warm_up(job, config.warm_up, opened, read_tables(interactions, splits))
    loaded_with = config.model_dump_json(indent=1, exclude={"warm_up"})  # which is in the weights
    job.draft.path(POLICY).write_text(loaded_with)


def _bootstrap(job: Job, config: PolicyConfig, interactions: Artifact, splits: Artifact) -> None:
    from recalign.embedded.bootstrap import train_bootstrap

    settings = config.bootstrap
    tables = read_tables(interactions, splits)
    seen = tables.before("policy", tables.windows["fit_start"].to_numpy())
    histories = choose_histories(seen, settings, MIN_PREFIX)
    render = Renderer(settings.template, tables.items)
    demonstrations = build_demonstrations(tables.items, histories, render, settings.seed)
    run = TrainingRun("policy", job.draft.work, job.draft.path(MODEL), job.progress, job.device)
    figures = train_bootstrap(settings, demonstrations, run)
    silent = {"history without attributes": demonstrations.n_silent}
    job.draft.count(len(demonstrations.prompts), silent)
    job.draft.tell(figures)


def _warm_up(job: Job, config: WarmUpConfig, first: Policy, tables: Tables) -> None:
    """Train `first` on texts by rule about the history windows; keep all its weights."""
    from recalign.sft.train import train_sft
    from recalign.training.adapters import save_policy

    fitted, kept_aside, left_out = _demonstrated(config, first, tables)
    work, folder = job.draft.work / "training", job.draft.path(MODEL)
    kept = folder if config.method == "full" else job.draft.work / ADAPTER
    run = TrainingRun(
        "policy.warm_up", work, kept, job.progress, job.device, report_to=job.runtime.report_to
    )
    tuned = train_sft(first, fitted, kept_aside, config, run)
    if config.method == "lora":
        merged = tuned.model.merge_and_unload()  # type: ignore[operator]
        save_policy(merged, first.tokenizer, folder)
    log = tuned.log.rename({"valid_loss": "held_out_loss"})
    log.write_parquet(job.draft.path(f"{MODEL}/{CURVE_FILE}"), compression="zstd")
    job.draft.count(len(fitted), left_out)
    job.draft.tell(tuned.figures)


def _demonstrated(
    config: WarmUpConfig, llm: Policy, tables: Tables
) -> tuple[Examples, Examples, dict[str, int]]:
    """Prompts with the texts that the template writes: to train on, and of held-out users.

    Also how many are left out, by reason: a text that stage reasonings would not use is not taught.
    """
    from recalign.alignment.rows import held_out  # torch: seconds

    drawn = _drawn_histories(config, tables)
    held = held_out(drawn.users, config.held_out, config.seed)
    ask, tell = (Renderer(name, tables.items) for name in (config.template, config.text))
    made: dict[bool, tuple[list[list[int]], list[int]]] = {False: ([], []), True: ([], [])}
    left_out: Counter[str] = Counter()
    words = AnswersConfig(min_words=config.min_words)
    for row, history in enumerate(drawn.histories):
        told = tell(history, liked=drawn.liked[row], next=tell.items[drawn.following[row]])
        ids, first = made[bool(held[row])]
        for question, text in _answered(ask(history), told, config):
            prompt, answer = llm.encode_prompt(question), llm.encode_completion(text)
            problem = check_text(text, len(answer) <= config.longest_text, words)
            if problem or len(prompt) + len(answer) > config.max_length:
                left_out[f"malformed: {problem}" if problem else "too long"] += 1
                continue
            ids.append(prompt + answer)
            first.append(len(prompt))
    fitted, kept_aside = (Examples(*pair) for pair in made.values())
    if not len(fitted) or not len(kept_aside):
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "none"
        raise UserError(
            f"policy.warm_up: of {len(held)} texts, {len(fitted)} can be trained on and"
            f" {len(kept_aside)} held out; each needs at least one (left out: {reasons}). A text is"
            f" unfinished above {config.longest_text} tokens (longest_text; where that is 0,"
            f" reasonings.max_new_tokens) and short below {config.min_words} words"
            " (reasonings.min_words, unless policy.warm_up has its own). Set these otherwise, raise"
            " n_prompts, held_out or max_length of policy.warm_up, or choose another text (a"
            " template)"
        )
    return fitted, kept_aside, dict(left_out)


def _answered(prompt: str, text: str, config: WarmUpConfig) -> list[tuple[str, str]]:
    """Each question of a prompt with its answer in a text by rule."""
    questions, answers = questions_of(prompt), questions_of(text)
    if len(questions) != len(answers):
        raise UserError(
            f"policy.warm_up: template {config.template} asks {len(questions)} questions, and text"
            f" {config.text} gives {len(answers)} answers: put next_question between answers, too"
        )
    return list(zip(questions, answers, strict=True))


@dataclass(frozen=True)
class _Drawn:
    """n histories by user, each with the item that followed and what is liked in it."""

    users: np.ndarray
    histories: list[list[int]]
    following: list[int]
    liked: list[dict[str, list[str]]]


def _drawn_histories(config: WarmUpConfig, tables: Tables) -> _Drawn:
    seen = tables.before("policy", tables.windows["fit_start"].to_numpy())
    long_enough = seen.lengths > MIN_PREFIX
    if long_enough.sum() < 2:
        raise UserError(
            f"policy.warm_up needs two users with {MIN_PREFIX + 1} items before their fit window "
            f"(there are {long_enough.sum()}): set smaller windows under splits"
        )
    users, cutoffs = choose_prefixes(seen.lengths - 1, config.n_prompts, MIN_PREFIX, config.seed)
    firsts = np.maximum(cutoffs - config.history_items, 0)
    histories = seen.slices(users, firsts, cutoffs)
    following = [int(one[0]) for one in seen.slices(users, cutoffs, cutoffs + 1)]
    liked = liked_values(tables.items, histories, config.n_liked)
    return _Drawn(users, [history.tolist() for history in histories], following, liked)


@policy.shows
def curve_shown(made: Artifact) -> list[str]:
    """Loss by step, of a policy that was trained here."""
    curve = made.path(POLICY_CURVE)
    return [picture(bootstrap_curve(read_parquet(curve)))] if curve.exists() else []
