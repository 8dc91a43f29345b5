"""What a policy learns from rewarded completions: optimiser, loss and training."""

from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from recalign.config.base import NOT_IDENTITY, Config, Seed, only_when
from recalign.config.training import WeightsConfig

PAIRED = only_when(optimiser="pairs")
PREFERRING = only_when(optimiser=("pairs", "listwise"))
REFERRING = only_when(optimiser=("pairs", "listwise", "grpo"))

Optimiser = Literal["pairs", "listwise", "best_of_n", "grpo"]
Loss = Literal["dpo", "rosepo", "cdpo", "rdpo", "ipo", "sdpo", "dmpo", "simpo", "nll"]
PERSONAL: tuple[Loss, ...] = ("rosepo", "rdpo")
"""Losses that read an eps of each pair."""


class GRPOConfig(Config):
    """Policy gradient on the rewards of a prompt's samples (GRPO, arXiv 2402.03300)."""

    heading = "Policy gradient"

    scale: Literal["std", "none"] = "std"
    """Divide a prompt's advantages by the standard deviation of its rewards, or not (Dr. GRPO)."""
    mean: Literal["completion", "prompt", "constant"] = "completion"
    """Mean over each completion's tokens (GRPO), over all tokens of a prompt's completions (DAPO),
    or sums divided by the same number for all (Dr. GRPO)."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """A token's ratio to the policy that wrote it counts no further below 1 than this."""
    clip_high: float = Field(0.2, gt=0, le=10)
    """A token's ratio counts no further above 1 than this (DAPO: 0.28)."""
    kl_weight: float = Field(0.04, ge=0, le=10)
    """Weight of the KL divergence to the reference (GRPO: 0.04; Dr. GRPO and DAPO: 0)."""
    kl_corrected: bool = True
    """Weigh the divergence by each token's ratio, so that its gradient is unbiased however far the
    policy has moved (DeepSeek-V3.2, arXiv 2512.02556; TRL's default), or not (GRPO)."""
    max_kl: float = Field(1.0, gt=0, le=100, json_schema_extra=NOT_IDENTITY)
    """The stage ends with an error when held-out completions have a higher KL divergence to the
    reference than this, in nats a token."""
    title_reward: Literal["rank", "hit"] = "rank"
    """Reward of titles: 1 for the item taken; for others 0 (hit), or below 0 and the lower the
    higher the SFT model ranks them (rank, after MiniOneRec)."""


class AlignmentConfig(WeightsConfig):
    """What a policy learns from scored completions, and how it is trained (TRL, PEFT)."""

    heading = "Alignment by preferences"
    first = ("optimiser", "loss", "beta", "learning_rate", "epochs", "method")

    optimiser: Optimiser = "pairs"
    """What is learned: pairs prefers the chosen to the rejected, listwise ranks all completions of
    a prompt, best_of_n imitates the best, grpo raises what earns more than its prompt's mean."""
    loss: Loss = Field("dpo", json_schema_extra=PAIRED)
    """Preference loss; rosepo and rdpo read each pair's smoothing, nll only the chosen."""
    ranking: Literal["best", "order"] = Field(
        "best", json_schema_extra=only_when(optimiser="listwise")
    )
    """Best against all others (S-DPO), or the whole order of the rewards (Plackett-Luce)."""
    beta: float = Field(0.1, gt=0, le=10, json_schema_extra=PREFERRING)
    """Strength of the pull to the reference (DPO's beta)."""
    drop_above: float = Field(
        0.5, ge=0, le=0.5, json_schema_extra=replace(PAIRED, unless_default=True)
    )
    """Pairs with an eps above this are left out, as likely false negatives; 0.5: none (RosePO)."""
    gamma: float = Field(0.5, ge=0, le=10, json_schema_extra=only_when(loss="simpo"))
    """What beta times the difference of log-probabilities per token should exceed (SimPO)."""
    constant_eps: float = Field(0.1, ge=0, lt=0.5, json_schema_extra=only_when(loss="cdpo"))
    """The eps of every pair alike."""
    reference: Literal["initial", "previous"] = Field("initial", json_schema_extra=REFERRING)
    """The policy before any alignment, or that of the round before (of the part before, with
    rounds.inner_rounds)."""
    anchor: float = Field(0.5, ge=0, le=10, json_schema_extra=PREFERRING)
    """Weight of the chosen text's loss (nats a token), which is added to the preference loss."""
    min_advantage: float = Field(0.0, ge=0, json_schema_extra=only_when(optimiser="best_of_n"))
    """The best is imitated where its reward is above the mean of its prompt by more than this."""
    grpo: GRPOConfig = Field(GRPOConfig(), json_schema_extra=only_when(optimiser="grpo"))
    """Clipping, KL and means of the policy gradient."""
    method: Literal["lora", "full"] = "lora"
    """Train a low-rank adapter, or all weights."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Peak learning rate of AdamW, warmed up and decayed linearly."""
    epochs: int = Field(3, ge=1, le=1000)
    """Most passes over the pairs, or over the prompts with all their completions."""
    batch_size: int = Field(16, ge=1, le=4096)
    """Pairs, or prompts with all their completions, per optimiser step (of which micro_batch_size
    are in memory at once)."""
    held_out: float = Field(0.1, gt=0, lt=0.9)
    """Share of users who are held out for early stopping."""
    evaluations: int = Field(6, ge=1, le=1000)
    """How often per run the held-out users are scored."""
    patience: int = Field(3, ge=1, le=1000)
    """Evaluations without a lower held-out loss before training stops."""
    seed: Seed = 0
    """Seed of the adapter's weights and of the order of rows."""
    allow_worse: bool = Field(False, json_schema_extra=NOT_IDENTITY)
    """Keep a policy whose held-out loss rose from the start on; for sweeps, whose runs may fail."""

    @property
    def reads_eps(self) -> bool:
        """Whether an eps of each pair is read, by the loss or to leave pairs out."""
        drops = self.drop_above < type(self).model_fields["drop_above"].default
        return self.counts("loss") and (self.loss in PERSONAL or drops)

    @model_validator(mode="after")
    def _micro_batches_fill_a_batch(self) -> "AlignmentConfig":
        if self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        return self
