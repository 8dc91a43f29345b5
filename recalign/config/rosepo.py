"""All settings of one RosePO run, stage by stage (arXiv 2410.12519)."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from recalign.config.alignment import PAIRED, PREFERRING, AlignmentConfig, Loss
from recalign.config.base import NOT_IDENTITY, UNLESS_DEFAULT, Config, Seed, only_when
from recalign.config.interactions import InteractionsConfig
from recalign.config.oracle import OracleConfig
from recalign.config.rejections import RejectionsConfig
from recalign.config.sft import SftConfig
from recalign.config.splits import SplitsConfig

Estimator = Literal["none", "pairwise", "softmax", "constant", "permuted", "truth"]
Control = Literal[
    "popularity", "oracle", "continued", "continued_fresh", "random",
    "none", "constant", "permuted", "truth",
]  # fmt: skip

DOUBTS = ("pairwise", "softmax", "permuted")  # estimators that read an oracle's scores
DOUBTED = only_when(estimator=DOUBTS)
CROSS_FITTED = only_when(oracle="cross_fitted")


class SmoothingConfig(Config):
    """eps: the estimated probability that the rejected item is really the better one."""

    estimator: Estimator = "pairwise"
    """pairwise: sigma((s_l - s_w) / tau), of the oracle's scores of the rejected and the chosen
    item, and its temperature; softmax: the rejected item's share; constant: one value.
    Controls: permuted, the pairwise values of other pairs; truth (synthetic world); none."""
    oracle: Literal["earlier", "cross_fitted"] = Field("earlier", json_schema_extra=DOUBTED)
    """Who scores: the oracle of the history windows, which end before any pair, or oracles that
    are fitted up to validation on the users outside the pair's fold."""
    folds: int = Field(5, ge=5, le=50, json_schema_extra=CROSS_FITTED)
    """User folds."""
    calibrated: bool = Field(True, json_schema_extra=DOUBTED)
    """Divide oracle scores by the temperature fitted on its validation window."""
    discount: float = Field(0.5, gt=0, le=1, json_schema_extra=DOUBTED)
    """eps is multiplied by this, since the user did take the chosen item: n / (n + 1) if the oracle
    counts as much as n choices; 1: not discounted."""
    constant: float = Field(0.1, ge=0, lt=0.5, json_schema_extra=only_when(estimator="constant"))
    """The eps of every pair."""
    cap: float = Field(
        0.49, gt=0, lt=0.5, json_schema_extra=only_when(estimator=(*DOUBTS, "constant", "truth"))
    )
    """Larger eps are lowered to this; above one half a pair would count in reverse."""
    seed: Seed = Field(0, json_schema_extra=only_when(estimator="permuted") | CROSS_FITTED)
    """Seed of folds and of the permutation."""

    @property
    def needs_oracle(self) -> bool:
        """Whether an oracle's scores are read."""
        return self.estimator in DOUBTS

    @property
    def folding(self) -> "FoldsConfig":
        """The settings of the stage that fits an oracle per fold (cross_fitted)."""
        return FoldsConfig(folds=self.folds, seed=self.seed)


class FoldsConfig(Config):
    """Folds of users, each judged by an oracle that has not seen their pairs."""

    folds: int
    """Number of folds."""
    seed: int
    """Seed of who is in which fold."""


class ReferenceConfig(Config):
    """How the SFT model's log-probabilities of pairs are computed, once for all alignments."""

    max_length: int
    """Longest prompt plus completion, in tokens."""
    precision: Literal["weights", "bfloat16"]
    """Number format of matrix products."""
    micro_batch_size: int = Field(json_schema_extra=NOT_IDENTITY)
    """Pairs per forward pass."""


class RosePOAlignmentConfig(AlignmentConfig):
    """Preference optimisation of titles: smoothed by default, without an anchor."""

    loss: Loss = Field("rosepo", json_schema_extra=PAIRED)
    """Preference loss; rosepo and rdpo read each pair's smoothing, nll only the chosen."""
    beta: float = Field(0.5, gt=0, le=10, json_schema_extra=PREFERRING)
    """Strength of the pull to the reference (DPO's beta)."""
    reference: Literal["initial", "previous"] = Field("initial", json_schema_extra=NOT_IDENTITY)
    """Not read: the reference is always the SFT model, scored once for all alignments."""
    anchor: float = Field(0.0, ge=0, le=10, json_schema_extra=PREFERRING)
    """Weight of the chosen title's negative log-likelihood, added to the preference loss."""
    method: Literal["lora", "full"] = "full"
    """Train a low-rank adapter, or all weights."""
    learning_rate: float = Field(5e-5, gt=0, le=1)
    """Peak learning rate of AdamW, warmed up and decayed linearly."""
    epochs: int = Field(1, ge=1, le=1000)
    """Most passes over the pairs."""
    batch_size: int = Field(64, ge=1, le=4096)
    """Pairs per optimiser step (of which micro_batch_size are in memory at once)."""
    micro_batch_size: int = Field(64, ge=1, le=4096)
    """Pairs per forward pass; must divide batch_size."""

    def for_reference(self) -> "ReferenceConfig":
        """The settings of the stage that scores the pairs with the SFT model."""
        return ReferenceConfig(
            max_length=self.max_length,
            precision=self.precision,
            micro_batch_size=self.micro_batch_size,
        )


class JudgementConfig(Config):
    """How next-item rankings and answers are judged, in every phase alike."""

    list_length: int = Field(20, ge=2, le=1000)
    """Length of the fixed candidate lists, the true next item among them."""
    n_cases: int = Field(0, ge=0, le=10_000)
    """Most next items judged per user, the first of the window; 0: all."""
    top: int = Field(10, ge=1, le=1000)
    """Length of the recommended list whose popularity bias is measured."""
    beam: int = Field(0, ge=0, le=1000)
    """Width of the beam search over the catalogue's titles, which can miss some; 0: score every
    title. Not read where sft.format is candidates, which ranks no catalogue."""
    likelihood: Literal["sum", "mean"] = "sum"
    """Log-probability of a title over all its tokens, or per token (titles differ in length). The
    beam, and self-hard rejections, go by sums in either case."""
    neighbours: int = Field(10, ge=1, le=1000)
    """A wrong answer among this many nearest texts of the true item counts as semantic."""
    encoder: str = "minilm"
    """Sentence encoder of the item texts."""


class RecommendationsConfig(JudgementConfig):
    """How next-item rankings and answers are judged and compared."""

    n_resamples: int = Field(2000, ge=100, le=100_000)
    """Bootstrap resamples of the users for the 95 % intervals."""
    seed: Seed = 0
    """Seed of the resamples."""
    controls: list[Control] = Field(list(get_args(Control)), json_schema_extra=NOT_IDENTITY)
    """Rows beside the SFT model and the configured one. popularity, oracle: what ranks without the
    LLM; continued, continued_fresh: the SFT model trained further on the pairs' chosen items, or on
    as many others; random: aligned on random rejections; none, constant, permuted, truth: another
    smoothing of the same pairs (truth in the synthetic world alone)."""
    validated: bool = Field(True, json_schema_extra=NOT_IDENTITY)
    """Judge rows on validation, too; false halves what judging costs, and no row can be chosen."""

    @model_validator(mode="after")
    def _beam_finds_what_is_counted(self) -> "RecommendationsConfig":
        if 0 < self.beam < max(self.top, 10):
            raise ValueError(
                f"recommendations.beam = {self.beam} finds fewer items than HR@10 and"
                f" recommendations.top = {self.top} count: raise it, or set 0 to score every title"
            )
        return self

    def compare(self, rows: list["ComparedRow"]) -> "ComparisonConfig":
        """The settings of the stage that sets rows side by side."""
        return ComparisonConfig(rows=rows, n_resamples=self.n_resamples, seed=self.seed)

    def for_phase(self, phase: Literal["valid", "test"]) -> "RecommendationsPhase":
        """The settings for judging on validation or test targets."""
        values = {name: getattr(self, name) for name in JudgementConfig.model_fields}
        return RecommendationsPhase(**values, phase=phase)


class RecommendationsPhase(JudgementConfig):
    """Rankings and answers for the targets of one phase."""

    phase: Literal["valid", "test"]


class ComparedRow(Config):
    """One row of the comparison: what it is, and how an aligned policy was made."""

    label: str
    """Name of the row."""
    kind: Literal["popularity", "sasrec", "sft", "continued", "continued_fresh", "aligned"]
    """A baseline, the SFT model, an aligned policy, or a control of aligned ones: the SFT model
    trained on as before, on the chosen items of the strategy's pairs or on as many fresh ones."""
    strategy: str = ""
    """Where rejected items come from (aligned), or whose pairs are the budget (continued)."""
    estimator: str = ""
    """Smoothing of the pairs (aligned)."""
    loss: Loss | Literal[""] = ""
    """Preference loss (aligned); empty: that of the settings."""
    configured: bool = Field(False, json_schema_extra=UNLESS_DEFAULT)
    """The row as the settings say, where it has no eps of each pair's own: the run is about it."""


class ComparisonConfig(Config):
    """Rows that are compared, and how their intervals are resampled."""

    rows: list[ComparedRow]
    """In the order of the table; row i is input `row_i`, its validation `valid_i`."""
    n_resamples: int
    """Bootstrap resamples."""
    seed: int
    """Seed of the resamples."""


class RosePOConfig(Config):
    """One model per stage; the defaults are the embedded run."""

    presets = "rosepo"
    seeds = ("sft.seed", "rejections.seed", "alignment.seed")
    heading = "Settings of every stage"
    first = ("interactions", "sft", "rejections", "smoothing", "alignment")

    interactions: InteractionsConfig = InteractionsConfig()
    """Ingest."""
    splits: SplitsConfig = SplitsConfig()
    """Windows and candidate lists."""
    oracle: OracleConfig = OracleConfig()
    """The sequential recommender that judges pairs: SASRec, or GRU4Rec."""
    sft: SftConfig = SftConfig()
    """The LLM that names the next item."""
    rejections: RejectionsConfig = RejectionsConfig()
    """Rejected items."""
    smoothing: SmoothingConfig = SmoothingConfig()
    """How much each pair is smoothed."""
    alignment: RosePOAlignmentConfig = RosePOAlignmentConfig()
    """Preference optimisation."""
    recommendations: RecommendationsConfig = RecommendationsConfig()
    """Evaluation."""

    @property
    def judging(self) -> RecommendationsConfig:
        """How rankings are judged, the beam at its default where the LLM ranks no catalogue."""
        asked = self.recommendations
        if self.sft.format == "history":
            return asked
        return asked.model_copy(update={"beam": type(asked).model_fields["beam"].default})

    @model_validator(mode="after")
    def _stages_fit_together(self) -> "RosePOConfig":
        shown = self.sft.n_candidates if self.sft.format == "candidates" else 0
        if shown and self.rejections.n_rejected >= shown:
            raise ValueError("rejections.n_rejected must be below sft.n_candidates")
        self._check_adapters()
        if self.splits.others_fit:
            raise ValueError("splits.others_fit is for DPO4Rec: RosePO reads no texts")
        if self.splits.protocol == "kar":
            raise ValueError(
                "splits.protocol = kar re-ranks lists with what an LLM wrote about users, as"
                " DPO4Rec does; RosePO needs per_user or temporal"
            )
        per_user = self.splits.protocol == "per_user"
        if not (self.splits.reward if per_user else self.splits.reward_share):
            name = "reward" if per_user else "reward_share"
            raise ValueError(f"splits.{name} must be above 0: pairs come from that window")
        if not (self.splits.fit if per_user else self.splits.fit_share) and (
            not self.estimators.isdisjoint(DOUBTS)
            and self.smoothing.calibrated and self.smoothing.oracle == "earlier"
        ):  # fmt: skip
            name = "fit" if per_user else "fit_share"
            raise ValueError(
                f"smoothing.calibrated needs splits.{name} above 0: the temperature is fitted on"
                " that window, and permuted eps, a control, are calibrated, too; or set"
                " smoothing.calibrated = false, or leave permuted out of recommendations.controls"
            )
        eps = min(self.smoothing.constant, self.smoothing.cap)
        if "constant" in self.estimators and self.alignment.drop_above < eps:
            raise ValueError(
                f"alignment.drop_above = {self.alignment.drop_above} leaves no pair to the control"
                f" whose eps are all smoothing.constant = {self.smoothing.constant}: raise the one"
                " or lower the other"
            )
        if self.recommendations.list_length - 1 > self.splits.n_negatives:
            raise ValueError(
                "recommendations.list_length needs more negatives than splits.n_negatives draws"
            )
        if self.smoothing.estimator == "truth" and self.interactions.source != "synthetic":
            raise ValueError("smoothing.estimator = truth needs interactions.source = synthetic")
        return self

    @property
    def estimators(self) -> set[str]:
        """All smoothings of the strategy's pairs: the configured one and its controls."""
        if not self.alignment.reads_eps:
            return set()
        asked: set[str] = {self.smoothing.estimator, *self.recommendations.controls}
        return asked & set(get_args(Estimator))

    def _check_adapters(self) -> None:
        """ValueError where alignment could not go on with what sft has trained."""
        self.sft.check_training(self.alignment.method, "alignment")
        if self.sft.method == "full":
            return
        if self.alignment.method == "full":
            raise ValueError(
                "alignment.method = full trains weights, and sft.method = lora leaves an adapter:"
                " use lora for both, or full for sft, too"
            )
        for name in ("lora_rank", "lora_alpha"):
            if (of_sft := getattr(self.sft, name)) != getattr(self.alignment, name):
                raise ValueError(
                    f"alignment goes on with the adapter of sft: set alignment.{name} = {of_sft}"
                )
