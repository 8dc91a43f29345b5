"""All settings of one DPO4Rec run, stage by stage."""

from pydantic import model_validator

from recalign.config.alignment import PERSONAL, AlignmentConfig
from recalign.config.base import Config
from recalign.config.evaluation import EvaluationConfig, ReportConfig, RoundsConfig
from recalign.config.interactions import InteractionsConfig
from recalign.config.oracle import OracleConfig
from recalign.config.policy import ItemReasoningsConfig, PolicyConfig, ReasoningsConfig
from recalign.config.recommender import SEVERAL, PairsConfig, RecommenderConfig, RewardsConfig
from recalign.config.splits import SplitsConfig


class DPO4RecConfig(Config):
    """One model per stage; the defaults are the embedded run."""

    presets = "dpo4rec"
    seeds = (
        "policy.bootstrap.seed", "policy.warm_up.seed", "reasonings.seed", "recommender.seed",
        "pairs.seed", "alignment.seed",
    )  # fmt: skip
    heading = "Settings of every stage"
    first = ("interactions", "policy", "reasonings", "alignment", "rounds")

    interactions: InteractionsConfig = InteractionsConfig()
    """Ingest."""
    splits: SplitsConfig = SplitsConfig()
    """Windows and candidate lists."""
    oracle: OracleConfig = OracleConfig()
    """The sequential recommender that judges reasonings: SASRec, or GRU4Rec."""
    policy: PolicyConfig = PolicyConfig()
    """The LLM before alignment."""
    reasonings: ReasoningsConfig = ReasoningsConfig()
    """Prompts and sampling."""
    item_reasonings: ItemReasoningsConfig = ItemReasoningsConfig()
    """What the LLM writes about items."""
    recommender: RecommenderConfig = RecommenderConfig()
    """The recommender that reads reasonings."""
    rewards: RewardsConfig = RewardsConfig()
    """The reward of a reasoning."""
    pairs: PairsConfig = PairsConfig()
    """Chosen and rejected."""
    alignment: AlignmentConfig = AlignmentConfig()
    """What the policy learns from rewarded reasonings."""
    rounds: RoundsConfig = RoundsConfig()
    """Repetition."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Metrics and intervals."""
    report: ReportConfig = ReportConfig()
    """The HTML page."""

    @model_validator(mode="after")
    def _stages_fit_together(self) -> "DPO4RecConfig":
        splits = self.splits
        if splits.protocol == "per_user" and not (splits.fit and splits.reward):
            raise ValueError("splits.fit and splits.reward must be at least 1 for DPO4Rec")
        if splits.protocol == "temporal" and not (splits.fit_share and splits.reward_share):
            raise ValueError("splits.fit_share and reward_share must be above 0 for DPO4Rec")
        if self.recommender.kind == "prm" and self.splits.protocol != "kar":
            raise ValueError(
                "recommender.kind = prm re-ranks lists: it needs splits.protocol = kar"
            )
        usual = type(self.recommender).model_fields["others_text"].default
        if self.recommender.others_text != usual and not self.splits.others_fit:
            raise ValueError("recommender.others_text is read only with splits.others_fit = true")
        if self.item_reasonings.write and self.policy.kind == "bootstrap":
            raise ValueError(
                "item_reasonings.write needs an LLM that knows items: the embedded one writes about"
                " users alone; set policy.kind = huggingface"
            )
        about_items = self.item_reasonings.writer if self.item_reasonings.write else ""
        if self.policy.warm_up.n_prompts and "openai" in (self.reasonings.writer, about_items):
            raise ValueError(
                "policy.warm_up: a server would write with the LLM before it: use writer = local,"
                " or serve a model that is trained already"
            )
        self.policy.check_training(self.alignment.method, "alignment")
        if self.alignment.reads_eps:
            personal = self.alignment.loss in PERSONAL
            read = f"alignment.loss = {self.alignment.loss}" if personal else "alignment.drop_above"
            raise ValueError(
                f"{read} needs an eps of each pair, which DPO4Rec's pairs do not have: use dpo, or"
                " cdpo with alignment.constant_eps, and leave drop_above at 0.5"
            )
        if self.evaluation.list_targets >= self.evaluation.list_length:
            raise ValueError(
                "evaluation.list_targets must be below evaluation.list_length: in a list of targets"
                " alone every item is a hit"
            )
        if self.evaluation.list_length - self.evaluation.list_targets > self.splits.n_negatives:
            raise ValueError(
                "evaluation.list_length needs more negatives than splits.n_negatives draws"
            )
        if self.alignment.optimiser != "pairs" and self.pairs.select in SEVERAL:
            raise ValueError(
                f"pairs.select = {self.pairs.select} makes several pairs of a prompt, which only"
                " alignment.optimiser = pairs reads"
            )
        if self.alignment.optimiser == "grpo" and self.rounds.pairs == "cumulative":
            raise ValueError(
                "alignment.optimiser = grpo learns from what the round's own policy wrote:"
                " rounds.pairs must be new"
            )
        return self

    @property
    def first_policy(self) -> PolicyConfig:
        """`policy`; template and lengths that its warm-up leaves out are those of `reasonings`."""
        own, asked = self.policy.warm_up, self.reasonings
        usual = type(own).model_fields["min_words"].default
        filled = {
            "template": own.template or asked.template,
            "history_items": own.history_items or asked.history_items,
            "longest_text": own.longest_text or asked.max_new_tokens,
            "min_words": asked.min_words if own.min_words == usual else own.min_words,
        }
        warm_up = own.model_copy(update=filled if own.n_prompts else {})
        return self.policy.model_copy(update={"warm_up": warm_up})
