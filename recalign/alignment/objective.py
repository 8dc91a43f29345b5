"""What the optimisers that read all completions of a prompt minimise: one value per prompt."""

from dataclasses import dataclass

from torch import Tensor

from recalign.alignment import losses
from recalign.alignment.listwise import best_against_all, plackett_luce
from recalign.config import AlignmentConfig


@dataclass(frozen=True)
class GroupScores:
    """B prompts with S completions of L tokens at most; what is absent counts 0."""

    tokens: Tensor
    """Log-probability of every token, [B, S, L]."""
    reference: Tensor
    """The same under the reference; all 0 where none is read."""
    lengths: Tensor
    """Tokens of each completion, int64 [B, S]; 0: absent."""
    rewards: Tensor
    """[B, S]."""
    chosen: Tensor
    """Place of the best, int64 [B]."""

    @property
    def present(self) -> Tensor:
        """Which completions are there, bool [B, S]."""
        return self.lengths > 0

    @property
    def ratios(self) -> Tensor:
        """r: log ratio of each completion to the reference, [B, S]."""
        return (self.tokens - self.reference).sum(-1)

    def of_chosen(self, values: Tensor) -> Tensor:
        """The best completion's one of `values` [B, S]; [B]."""
        return values.gather(1, self.chosen[:, None]).squeeze(1)


def group_loss(config: AlignmentConfig, scores: GroupScores) -> Tensor:
    """The loss of every prompt, [B]."""
    log_prob = scores.of_chosen(scores.tokens.sum(-1))
    imitation = losses.nll(log_prob, scores.of_chosen(scores.lengths))
    match config.optimiser:
        case "best_of_n":
            return imitation
        case "listwise":
            return _ranking(config, scores) + config.anchor * imitation
        case other:
            raise ValueError(f"optimiser {other} reads pairs")


def _ranking(config: AlignmentConfig, scores: GroupScores) -> Tensor:
    ratios, rewards, present = scores.ratios, scores.rewards, scores.present
    if config.ranking == "best":
        return best_against_all(ratios, rewards, scores.chosen, present, config.beta)
    return plackett_luce(ratios, rewards, present, config.beta)


def group_figures(config: AlignmentConfig, scores: GroupScores) -> dict[str, Tensor]:
    """What the log tells of every prompt, [B] each.

    drift: nats that the log-probability lies above the reference's; accuracy: share of the
    better-worse couples that the log ratios rank right.
    """
    figures = {"log_prob/chosen": scores.of_chosen(scores.tokens.sum(-1))}
    if config.optimiser == "best_of_n":
        return figures
    ratios, rewards, present = scores.ratios, scores.rewards, scores.present
    better = (rewards[:, :, None] > rewards[:, None, :]) & present[:, :, None] & present[:, None, :]
    right = (ratios[:, :, None] > ratios[:, None, :]) & better
    drift = scores.of_chosen(ratios)
    others = (ratios.sum(1) - drift) / (present.sum(1) - 1)
    return figures | {
        "drift/chosen": drift,
        "drift/others": others,
        "accuracy": right.sum((1, 2)) / better.sum((1, 2)),
    }
