"""The LLM that writes reasonings: where its first weights come from, and how it is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from recalign.config.base import NOT_IDENTITY, UNLESS_DEFAULT, Config, Seed, only_when
from recalign.config.small_llama import SmallLlamaConfig
from recalign.config.training import WarmUpConfig

EMBEDDED = only_when(kind="bootstrap")
LOADED = only_when(kind="huggingface")


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

    def check_training(self, method: str, stage: str) -> None:
        """ValueError where the stage cannot train these weights by this method."""
        coarse = self.dtype != "float32" or self.quantisation != "none"
        if self.kind == "huggingface" and method == "full" and coarse:
            raise ValueError(
                f"{stage}.method = full needs weights in float32 (dtype = float32, quantisation ="
                " none): in coarser ones steps as small as a learning rate are rounded away."
                f" {stage}.precision = bfloat16 multiplies in bfloat16 all the same; or use"
                " method = lora"
            )


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
        self.check_training(self.warm_up.method, "policy.warm_up")
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
