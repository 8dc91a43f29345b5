"""The optimisers that read all completions of a prompt: rows, learning, resume, refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from transformers import TrainerCallback

from recalign.alignment.divergence import refuse_worse
from recalign.alignment.groups import encode_groups
from recalign.alignment.objective import GroupScores, group_loss
from recalign.alignment.reference import (
    ReferenceLogProbs,
    TokenLogProbs,
    reference_log_probs,
    token_log_probs_of,
)
from recalign.alignment.rows import encode_pairs, held_out
from recalign.config import AlignmentConfig
from recalign.errors import FailedRoundError, UserError
from recalign.policy import Policy
from recalign.schemas import COMPLETIONS
from tests.alignment.alignment_samples import (
    CONFIG,
    Fails,
    Run,
    adapter_bytes,
    make_pairs,
    policy,
)


def optimised(name: str, **changes: Any) -> AlignmentConfig:
    """The sample settings with this optimiser."""
    values = CONFIG.model_dump() | {"optimiser": name} | changes
    return AlignmentConfig.model_validate(values)


def table(*rows: tuple[str, dict[str, float]]) -> pl.DataFrame:
    """COMPLETIONS of prompts with the reward of each of their texts; user 1, 2, ..."""
    columns = []
    for user, (prompt, earned) in enumerate(rows, start=1):
        rewards = list(earned.values())
        columns.append(
            {
                "user_index": user, "prompt": prompt, "completions": list(earned),
                "samples": list(range(len(earned))), "rewards": rewards,
                "chosen": int(np.argmax(rewards)), "rejected": [int(np.argmin(rewards))],
                "smoothing": [0.0],
            }
        )  # fmt: skip
    return pl.DataFrame(columns, schema=COMPLETIONS)


def make_groups(n: int) -> pl.DataFrame:
    """n users' 3 to 5 texts of low words (w3-w10) or high ones (w20-w39); low words earn more."""
    random = np.random.default_rng(4)
    rows = []
    for _ in range(n):
        earned = {}
        for place in range(int(random.integers(3, 6))):
            low, high = [(3, 11), (20, 40)][place % 2]
            words = random.integers(low, high, int(random.integers(2, 5)))
            earned[" ".join(f"w{i}" for i in words)] = -float(words.mean())
        prompt = " ".join(f"w{i}" for i in random.integers(3, 40, 6))
        rows.append((prompt, earned))
    return table(*rows)


@pytest.fixture
def groups() -> pl.DataFrame:
    """48 users."""
    return make_groups(48)


def test_all_samples_with_their_rewards_become_a_row(plain: Policy) -> None:
    given = table(("w3 w4", {"w5": 0.1, "w6 w7": 0.7, "w8": 0.2}))
    groups = encode_groups(given, plain, optimised("listwise"))
    assert groups.completions == [[[5, 1], [6, 7, 1], [8, 1]]]
    assert groups.rewards == [[0.1, 0.7, 0.2]]
    assert (groups.prompts, groups.chosen, groups.users.tolist()) == ([[3, 4]], [1], [1])
    assert groups.lengths.tolist() == [2 + 2 + 3 + 2]


def test_titles_have_the_reward_of_being_taken(plain: Policy) -> None:
    titles = make_pairs(1, n_rejected=2)  # no rewards
    assert encode_groups(titles, plain, optimised("listwise")).rewards == [[1.0, 0.0, 0.0]]


def test_prompts_that_teach_nothing_are_counted(plain: Policy) -> None:
    given = table(
        ("w3", {"w4": 0.5, "w5": 0.5}),
        ("w3", {"w4": 0.5}),
        ("", {"w4": 0.5, "w5": 0.1}),
        ("w3 w4 w5", {"w4 w5 w6 w7": 0.5, "w5": 0.1}),
        ("w3", {"w4": 0.5, "w5": 0.1}),
        ("w3", {"w4": -6.0, "w5": -6.0000003}),  # but for rounding
    )
    config = optimised("listwise").model_copy(update={"max_length": 7})
    groups = encode_groups(given, plain, config)
    assert groups.left_out == {"too_long": 1, "empty": 1, "equal_rewards": 3}
    assert groups.users.tolist() == [5]


@pytest.mark.parametrize("ranking", ["best", "order"])
def test_rewards_that_differ_by_rounding_alone_are_ranked_as_equal_ones(
    plain: Policy, ranking: Any
) -> None:
    config = optimised("listwise", ranking=ranking, anchor=0.0)

    def loss(first: float, second: float) -> float:
        given = table(("w3", {"w4": first, "w5": second, "w6": 0.0}))
        groups = encode_groups(given.with_columns(chosen=pl.lit(1, pl.Int16)), plain, config)
        tokens = torch.tensor([[[-0.3], [-0.9], [-0.4]]])
        nothing = torch.zeros_like(tokens)
        rewards = torch.tensor(groups.rewards)
        chosen = torch.tensor(groups.chosen)
        lengths = torch.ones(1, 3, dtype=torch.int64)
        scores = GroupScores(tokens, nothing, nothing, lengths, rewards, chosen, longest=1)
        return group_loss(config, scores).item()

    assert loss(1.0, 1.0 + 1e-7) == loss(1.0, 1.0) != loss(1.0, 1.1)


def test_a_row_of_close_rewards_does_not_become_one_tie(plain: Policy) -> None:
    """Each is within rounding of the next, the first and the last are not."""
    given = table(("w3", {"w4": 2.4e-5, "w5": 0.8e-5, "w6": 1.6e-5, "w7": 0.0}))
    [rewards] = encode_groups(given, plain, optimised("listwise")).rewards
    assert rewards == [1.6e-5, 0.0, 1.6e-5, 0.0]


def test_best_of_n_keeps_the_best_where_it_stands_out(plain: Policy) -> None:
    given = table(("w3", {"w4": 0.0, "w5": 0.6}), ("w3", {"w4": 0.0, "w5": 0.4, "w6": 0.5}))
    # Above the mean by .3 and by .2.
    for threshold, users in ((0.0, [1, 2]), (0.25, [1]), (0.3, [])):
        groups = encode_groups(given, plain, optimised("best_of_n", min_advantage=threshold))
        assert groups.users.tolist() == users
        assert groups.left_out.get("small_advantage", 0) == 2 - len(users)
    kept = encode_groups(given, plain, optimised("best_of_n"))
    assert kept.completions == [[[5, 1]], [[6, 1]]]


def test_token_log_probs_add_up_to_those_of_pairs(plain: Policy) -> None:
    pairs, model = make_pairs(7, n_rejected=2), policy()
    asked = replace(plain, model=model)
    config = CONFIG.model_copy(update={"micro_batch_size": 3})
    summed = reference_log_probs(asked, encode_pairs(pairs, plain, 64), config)
    groups = encode_groups(pairs, plain, optimised("listwise"))
    tokens = token_log_probs_of(asked, groups, config)
    for i, row in enumerate(tokens.rows):
        ends = np.cumsum([len(one) for one in groups.completions[i]])
        parts = [part.sum() for part in np.split(row, ends[:-1])]
        assert parts == pytest.approx([summed.chosen[i], *summed.rejected[i]], abs=1e-5)


@pytest.mark.parametrize("scores", [reference_log_probs, token_log_probs_of])
def test_a_killed_reference_pass_goes_on_behind_its_last_batch(
    plain: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: Any
) -> None:
    pairs, asked = make_pairs(7, n_rejected=2), replace(plain, model=policy())
    by_pair = scores is reference_log_probs
    rows = (
        encode_pairs(pairs, plain, 64)
        if by_pair
        else encode_groups(pairs, plain, optimised("listwise"))
    )
    config = CONFIG.model_copy(update={"micro_batch_size": 2})
    told: list[int] = []

    def killed(done: int, total: int, note: str = "") -> None:
        told.append(done)
        if told == [2, 4]:
            raise KeyboardInterrupt

    monkeypatch.setattr("recalign.alignment.reference.SAVE_SECONDS", 0.0)
    kept = tmp_path / "reference.npz"
    with pytest.raises(KeyboardInterrupt):
        scores(asked, rows, config, killed, kept=kept)
    resumed = scores(asked, rows, config, killed, kept=kept)
    assert told == [2, 4, 6, 7]
    scores(asked, rows, CONFIG.model_copy(update={"micro_batch_size": 3}), killed, kept=kept)
    assert told[4:] == [3, 6, 7]  # other batches begin anew
    for found, whole in zip(arrays(resumed), arrays(scores(asked, rows, config)), strict=True):
        assert found.tolist() == whole.tolist()


def arrays(scored: ReferenceLogProbs | TokenLogProbs) -> list[np.ndarray]:
    return scored.rows if isinstance(scored, TokenLogProbs) else [scored.chosen, scored.rejected]


def test_token_log_probs_are_kept_as_they_are(tmp_path: Path) -> None:
    made = TokenLogProbs([np.array([0.5, -1.0], np.float32), np.array([2.0], np.float32)])
    made.save(tmp_path / "reference.npz")
    found = TokenLogProbs.load(tmp_path / "reference.npz")
    assert [row.tolist() for row in found.rows] == [[0.5, -1.0], [2.0]]


LEARNERS = {
    "best against all": optimised("listwise", epochs=4),
    "order": optimised("listwise", ranking="order", epochs=4),
    "best of n": optimised("best_of_n", epochs=4),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_training_lowers_the_loss_of_held_out_users(
    name: str, run: Run, groups: pl.DataFrame, tmp_path: Path
) -> None:
    config = LEARNERS[name]
    result = run(policy(), groups, tmp_path, config)
    figures, log = result.figures, result.log
    assert figures["held_out_loss"] < figures["held_out_loss_start"] - 0.02
    users = groups["user_index"].to_numpy()
    assert figures["held_out_prompts"] == held_out(users, 0.25, 0).sum()
    if config.optimiser == "best_of_n":
        assert figures["completions"] == len(groups)
        assert log["held_out_accuracy"].is_null().all()
    else:
        assert figures["held_out_accuracy"] > 0.6
        assert figures["held_out_chosen_drift"] > figures["held_out_rejected_drift"]
    assert PeftModel.from_pretrained(policy(), tmp_path / "folder")


def test_before_the_first_step_the_loss_is_that_of_equal_ratios(
    run: Run, groups: pl.DataFrame, tmp_path: Path
) -> None:
    config = optimised("listwise", anchor=0.0, epochs=1, evaluations=1)
    start = run(policy(), groups, tmp_path, config).figures["held_out_loss_start"]
    held = held_out(groups["user_index"].to_numpy(), 0.25, 0)
    worse = groups["rewards"].list.eval(pl.element() < pl.element().max()).list.sum()
    sizes = 1 + worse.to_numpy()[held]  # the best, and what earns less
    assert start == pytest.approx(np.log(sizes).mean(), rel=1e-5)


@pytest.mark.parametrize("optimiser", ["listwise", "grpo"])
def test_a_stopped_run_resumes_to_the_same_bits(
    optimiser: str, run: Run, groups: pl.DataFrame, tmp_path: Path
) -> None:
    config = optimised(optimiser)
    undisturbed = run(policy(), groups, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        run(policy(), groups, tmp_path / "stopped", config, callbacks=(Fails(8),))
    result = run(policy(), groups, tmp_path / "stopped", config)
    assert adapter_bytes(tmp_path / "stopped") == adapter_bytes(tmp_path / "whole")
    assert result.log.equals(undisturbed.log)


def test_a_given_reference_is_read_and_one_of_other_prompts_refused(
    run: Run, groups: pl.DataFrame, tmp_path: Path, plain: Policy
) -> None:
    config = optimised("listwise", epochs=1, evaluations=1)
    rows = encode_groups(groups, plain, config)
    asked = replace(plain, model=policy().eval())
    known = token_log_probs_of(asked, rows, config)
    away = TokenLogProbs([row - np.float32(0.5) for row in known.rows])
    result = run(policy(), groups, tmp_path / "away", config, reference=away)
    held = held_out(rows.users, 0.25, 0)
    lengths = [len(rows.completions[i][rows.chosen[i]]) for i in np.flatnonzero(held)]
    start = result.log["held_out_chosen_drift"][0]
    assert start == pytest.approx(0.5 * np.mean(lengths), abs=1e-4)
    with pytest.raises(UserError, match="2 reference log-probabilities given for 48 prompts"):
        run(policy(), groups, tmp_path / "b", config, reference=TokenLogProbs(known.rows[:2]))


def test_too_few_prompts_are_refused_with_the_reasons(run: Run, tmp_path: Path) -> None:
    same = table(("w3", {"w4": 0.5, "w5": 0.5}), ("w3", {"w4": 0.5, "w5": 0.1}))
    with pytest.raises(UserError, match=r"learn from 1 prompts only \(left out: equal_rewards: 1"):
        run(policy(), same, tmp_path, optimised("listwise"))


def test_a_run_that_diverges_leaves_nothing(run: Run, groups: pl.DataFrame, tmp_path: Path) -> None:
    config = optimised("listwise", method="full").model_copy(update={"learning_rate": 1e30})
    with pytest.raises(FailedRoundError, match="alignment diverged: held-out loss nan"):
        run(policy(), groups, tmp_path, config)
    assert not (tmp_path / "folder").exists()


def test_grpo_starts_at_no_loss_and_raises_the_rewards_of_held_out_users(
    run: Run, groups: pl.DataFrame, tmp_path: Path
) -> None:
    result = run(policy(), groups, tmp_path, optimised("grpo", epochs=4))
    figures, log = result.figures, result.log
    # The ratios are 1 and the advantages of a prompt add up to 0.
    assert figures["held_out_loss_start"] == pytest.approx(0, abs=1e-5)
    assert log["held_out_kl"][0] == pytest.approx(0, abs=1e-5)
    assert log["held_out_reward_gain"][0] == pytest.approx(0, abs=1e-4)
    assert figures["held_out_loss"] < -0.05
    assert figures["held_out_reward_gain"] > 2  # of words' numbers
    assert 0 < figures["held_out_kl"] < 1
    assert figures["held_out_chosen_drift"] > figures["held_out_rejected_drift"]


def test_grpo_compares_with_the_policy_that_wrote_whatever_the_reference_is(
    run: Run, groups: pl.DataFrame, tmp_path: Path
) -> None:
    config = optimised("grpo", epochs=1, evaluations=1)
    run(policy(), groups, tmp_path / "first", optimised("best_of_n", epochs=2))
    for reference in ("initial", "previous"):
        adapted = PeftModel.from_pretrained(policy(), tmp_path / "first" / "folder")
        log = run(adapted, groups, tmp_path / reference, config, reference=reference).log
        assert log["held_out_reward_gain"][0] == pytest.approx(0, abs=1e-4)
        moved = log["held_out_kl"][0] > 1e-3
        assert moved == (reference == "initial")


def test_a_policy_that_leaves_its_reference_is_stopped(
    run: Run, groups: pl.DataFrame, tmp_path: Path
) -> None:
    settings = {"kl_weight": 0.0, "max_kl": 0.01}
    config = optimised("grpo", epochs=4, learning_rate=0.05, grpo=settings)
    with pytest.raises(UserError, match=r"nats a token away .* more than alignment\.grpo\.max_kl"):
        run(policy(), groups, tmp_path, config)
    assert not (tmp_path / "folder").exists()


def test_a_step_that_is_no_number_never_becomes_a_policy(
    run: Run, groups: pl.DataFrame, tmp_path: Path
) -> None:
    class Breaks(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step == 4:
                weight = next(p for p in given["model"].parameters() if p.grad is not None)
                weight.grad.fill_(float("nan"))

    with pytest.raises(FailedRoundError, match="alignment diverged: held-out loss nan at step 7"):
        run(policy(), groups, tmp_path, optimised("grpo"), callbacks=(Breaks(),))
    assert not (tmp_path / "folder").exists()


def test_grpo_may_end_a_little_above_its_start_which_is_zero() -> None:
    figures, config = {"held_out_loss_start": 0.0, "held_out_loss": 0.04}, optimised("grpo")
    refuse_worse(figures, config, "alignment")
    with pytest.raises(UserError, match="diverged"):
        refuse_worse(figures | {"held_out_loss": 0.06}, config, "alignment")


def test_unscaled_grpo_may_end_as_little_above_its_start_as_its_rewards_differ(
    run: Run, tmp_path: Path, groups: pl.DataFrame
) -> None:
    """Rewards such as NDCG differ by hundredths: .05 of them would be room for any policy."""
    close = groups.with_columns(rewards=pl.col("rewards").list.eval(pl.element() / 1000))
    config = optimised("grpo", grpo={"scale": "none"})
    figures = run(policy(), close, tmp_path, config).figures
    spread = figures["reward_std"]
    expected = [np.std(one, ddof=1) / 1000 for one in groups["rewards"].to_list()]
    assert spread == pytest.approx(np.mean(expected), rel=1e-3)
    refuse_worse(figures | {"held_out_loss": 0.04 * spread}, config, "alignment")
    with pytest.raises(UserError, match=r"diverged: .* at best 0\.00"):
        refuse_worse(figures | {"held_out_loss": 0.06 * spread}, config, "alignment")


def test_titles_earn_by_their_rank_or_by_being_taken(
    run: Run, tmp_path: Path, plain: Policy
) -> None:
    pairs = make_pairs(24, n_rejected=3)
    gains = {}
    for reward in ("rank", "hit"):
        config = optimised("grpo", grpo={"title_reward": reward})
        result = run(policy(), pairs, tmp_path / reward, config)
        assert (
            result.figures["held_out_chosen_drift"] > 0 > result.figures["held_out_rejected_drift"]
        )
        gains[reward] = result.figures["held_out_reward_gain"]
    assert 0 < gains["hit"] < 0.75  # from 1/4 of the hits to at most 1
    assert gains["rank"] != gains["hit"]
