"""The LLM that writes reasonings: where its first weights come from, and how it is aligned."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from recalign.config.base import NOT_IDENTITY, UNLESS_DEFAULT, Config, Seed, only_when
from recalign.config.small_llama import SmallLlamaConfig
from recalign.config.training import WarmUpConfig, WeightsConfig

EMBEDDED = only_when(kind="bootstrap")
LOADED = only_when(kind="huggingface")
PAIRED = only_when(optimiser="pairs")
PREFERRING = only_when(optimiser=("pairs", "listwise"))
REFERRING = only_when(optimiser=("pairs", "listwise", "grpo"))


def _without_gguf_folder(model: str) -> str:
    """A GGUF file counts by its name (and content), wherever it lies."""
    return Path(model).name if model.lower().endswith(".gguf") else model


def _if_any(warm_up: WarmUpConfig) -> WarmUpConfig:
    """Without prompts the other settings of a warm-up decide nothing."""
    return warm_up if warm_up.n_prompts else WarmUpConfig()


class BootstrapConfig(SmallLlamaConfig):
    """A small Llama with its own tokenizer, taught by rule-based reasoners (no download)."""

    n_prompts: int = Field(4000, ge=20, le=10_000_000)
    """Prompts from the history windows; each has a demonstration by every rule-based reasoner."""
    epochs: int = Field(2, ge=1, le=1000)
    """Passes over the demonstrations."""
    batch_size: int = Field(64, ge=1, le=65536)
    """Demonstrations per optimiser step."""
    learning_rate: float = Field(3e-3, gt=0, le=1)
    """Peak learning rate of AdamW, warmed up and decayed."""
    max_values: int = Field(200, ge=10, le=100_000)
    """Most values per attribute that get a token of their own; rarer ones become 'other'."""
    template: str = Field("attributes", json_schema_extra=NOT_IDENTITY)
    """Prompt template the demonstrations are written with: a packaged name or a file's path."""
    history_items: int = Field(12, ge=1, le=1000)
    """Most recent items shown in a demonstration's prompt."""
    seed: Seed = 0
    """Seed of demonstrations, initial weights and batches."""


class LoadedModelConfig(Config):
    """Where an LLM comes from, and, of a causal LM that is loaded, how its weights are held."""

    kind: Literal["bootstrap", "huggingface"] = "bootstrap"
    """Train the embedded small LLM, or take a causal LM of somebody else's."""
    model: str = Field("", json_schema_extra=replace(LOADED, counted=_without_gguf_folder))
    """Hub id ("meta-llama/Llama-3.1-8B-Instruct"), local folder, GGUF file (model.gguf), or the
    short name of a model that `recalign fetch` has brought (smollm2)."""
    revision: str = Field("main", json_schema_extra=LOADED)
    """Commit, tag or branch of the hub model; pin a commit for a reproducible run."""
    dtype: Literal["float32", "bfloat16", "auto"] = Field("float32", json_schema_extra=LOADED)
    """Number format of the weights in generation and training; auto: the faster one here."""
    quantisation: Literal["none", "int8", "nf4"] = Field("none", json_schema_extra=LOADED)
    """Load the frozen weights quantised (needs the extra `quant` and a GPU)."""
    chat_template: Literal["auto", "never"] = Field("auto", json_schema_extra=LOADED)
    """Wrap prompts in the tokenizer's chat template when it has one."""

    @model_validator(mode="after")
    def _model_is_named(self) -> Self:
        if self.kind == "huggingface" and not self.model:
            raise ValueError("model must name a hub id or folder when kind is huggingface")
        return self


class PolicyConfig(LoadedModelConfig):
    """Policy 0: the LLM before any alignment."""

    heading = "The LLM"

    bootstrap: BootstrapConfig = Field(BootstrapConfig(), json_schema_extra=EMBEDDED)
    """The embedded small LLM."""
    warm_up: WarmUpConfig = Field(
        WarmUpConfig(), json_schema_extra=replace(LOADED, unless_default=True, counted=_if_any)
    )
    """Training on texts by rule before anything else, so that a small LLM says what is asked."""

    @model_validator(mode="after")
    def _warm_up_can_be_kept(self) -> Self:
        if not self.warm_up.n_prompts:
            return self
        if self.kind == "bootstrap":
            raise ValueError(
                "policy.warm_up is for a loaded LLM: the embedded one is trained on texts by rule"
                " anyway; set policy.kind = huggingface"
            )
        if self.quantisation != "none":
            raise ValueError("policy.warm_up is merged into the weights: use quantisation = none")
        return self


class AnswersConfig(Config):
    """How the LLM answers, whatever it is asked about."""

    writer: Literal["local", "openai", "vllm"] = Field("local", json_schema_extra=UNLESS_DEFAULT)
    """Who samples: this process, a server that speaks OpenAI's API, or vLLM in this process."""
    served_model: str = Field("", json_schema_extra=only_when(writer="openai"))
    """What the server calls the LLM before alignment; empty: what policy.model calls it."""
    template: str = Field("attributes", json_schema_extra=NOT_IDENTITY)
    """Prompt template: a packaged name (attributes, movies, movies_short, movies_by_factor, books,
    products, products_short, recent) or a file's path."""
    temperature: float = Field(1.0, gt=0, le=5)
    """Sampling temperature."""
    top_k: int = Field(0, ge=0, le=100_000)
    """Sample among the k most probable tokens; 0: all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample among the most probable tokens that hold this share of the probability."""
    max_new_tokens: int = Field(32, ge=1, le=8192)
    """Longest reasoning, in tokens."""
    ends_at: Literal["end", "sentence"] = Field("end", json_schema_extra=UNLESS_DEFAULT)
    """A text ends where the LLM ends it, or at the end of its first sentence or line (a small LLM
    that is asked for one sentence goes on, and loops); the latter needs writer = local."""
    min_words: int = Field(3, ge=1, le=1000)
    """Shorter reasonings count as malformed."""
    seed: Seed = 0
    """Seed of the sampling streams, one per (user, sample)."""

    @model_validator(mode="after")
    def _writer_can_end_there(self) -> Self:
        if self.ends_at != "end" and self.writer != "local":
            raise ValueError("ends_at = sentence needs writer = local")
        return self


class SamplingConfig(AnswersConfig):
    """What the LLM is asked about users, and how it answers."""

    history_items: int = Field(12, ge=1, le=1000)
    """Most recent items shown in the prompt."""


class ItemReasoningsConfig(AnswersConfig):
    """What the LLM writes about items (KAR's item knowledge): once, greedily, before any round."""

    heading = "Texts about items"

    write: bool = False
    """Let the LLM write about every item; the recommender reads it beside title and attributes."""
    template: str = Field("about_movie", json_schema_extra=NOT_IDENTITY)
    """Prompt template: about_movie, about_movie_short, about_book, about_product, or a path."""
    max_new_tokens: int = Field(64, ge=1, le=8192)
    """Longest text, in tokens."""
    temperature: float = Field(1.0, gt=0, le=5, json_schema_extra=NOT_IDENTITY)
    """Not read: the text is the greedy one."""
    top_k: int = Field(0, ge=0, le=100_000, json_schema_extra=NOT_IDENTITY)
    """Not read."""
    top_p: float = Field(1.0, gt=0, le=1, json_schema_extra=NOT_IDENTITY)
    """Not read."""
    seed: Seed = Field(0, json_schema_extra=NOT_IDENTITY)
    """Not read."""


class PhaseConfig(SamplingConfig):
    """Reasonings of one phase: its prompts end before the phase's first target."""

    phase: Literal["fit", "reward", "valid", "test"]
    """Whose targets the reasonings will be judged on."""
    n_samples: int = Field(ge=1, le=256)
    """Samples per user, besides the greedy one."""
    part: int = Field(1, ge=1, json_schema_extra=UNLESS_DEFAULT)
    """Which part of the phase's users, from 1."""
    parts: int = Field(1, ge=1, json_schema_extra=UNLESS_DEFAULT)
    """Into how many parts they are dealt out."""


class ReasoningsConfig(SamplingConfig):
    """Prompts, sampling, and how many samples each phase needs."""

    first = ("template", "history_items", "n_samples", "max_new_tokens", "temperature")

    n_samples: int = Field(10, ge=2, le=256)
    """Samples per user in the reward phase (N in the paper)."""
    n_fit_samples: int = Field(4, ge=1, le=256)
    """Samples per user in the fit phase, for fitting the recommender."""
    n_eval_samples: int = Field(4, ge=1, le=256)
    """Samples per user in validation and test."""

    def for_phase(
        self, phase: Literal["fit", "reward", "valid", "test"], part: int = 1, parts: int = 1
    ) -> PhaseConfig:
        """The settings of one phase: changing another phase's count does not touch it."""
        counts = {"fit": self.n_fit_samples, "reward": self.n_samples}
        shared = {name: getattr(self, name) for name in SamplingConfig.model_fields}
        n_samples = counts.get(phase, self.n_eval_samples)
        return PhaseConfig(**shared, phase=phase, n_samples=n_samples, part=part, parts=parts)


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
    """Reference in round t: the policy before any alignment, or that of the round before."""
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
    """How often per run the held-out users are scored and a checkpoint is written."""
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
