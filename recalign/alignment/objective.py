"""What the optimisers that read all completions of a prompt minimise: one value per prompt."""

from dataclasses import dataclass

from torch import Tensor

from recalign.alignment import losses
from recalign.alignment.grpo import (
    advantages,
    clipped_surrogate,
    is_clipped,
    k3,
    reward_gain,
    token_mean,
)
from recalign.alignment.listwise import best_against_all, plackett_luce
from recalign.config import AlignmentConfig, GRPOConfig


@dataclass(frozen=True)
class GroupScores:
    """B prompts with S completions of L tokens at most; what is absent counts 0."""

    tokens: Tensor
    """Log-probability of every token, [B, S, L]."""
    reference: Tensor
    """The same under the reference; all 0 where none is read."""
    sampling: Tensor
    """The same under the policy that wrote the completions; all 0 where none is read."""
    lengths: Tensor
    """Tokens of each completion, int64 [B, S]; 0: absent."""
    rewards: Tensor
    """[B, S]."""
    chosen: Tensor
    """Place of the best, int64 [B]."""
    longest: int
    """Tokens of the longest completion of the whole run."""

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
    match config.optimiser:
        case "best_of_n":
            return _imitation(scores)
        case "listwise":
            return _ranking(config, scores) + config.anchor * _imitation(scores)
        case "grpo":
            return _policy_gradient(config.grpo, scores)
        case "pairs":
            raise ValueError("the optimiser pairs reads pairs")


def _imitation(scores: GroupScores) -> Tensor:
    log_prob = scores.of_chosen(scores.tokens.sum(-1))
    return losses.nll(log_prob, scores.of_chosen(scores.lengths))


def _ranking(config: AlignmentConfig, scores: GroupScores) -> Tensor:
    ratios, rewards, present = scores.ratios, scores.rewards, scores.present
    if config.ranking == "best":
        return best_against_all(ratios, rewards, scores.chosen, present, config.beta)
    return plackett_luce(ratios, rewards, present, config.beta)


def _policy_gradient(settings: GRPOConfig, scores: GroupScores) -> Tensor:
    surrogate = clipped_surrogate(*_clipping(settings, scores))
    distance = k3(scores.tokens, scores.reference)
    if settings.kl_corrected:
        distance = distance * (scores.tokens - scores.sampling).exp()
    values = surrogate + settings.kl_weight * distance
    return token_mean(values, scores.lengths, settings.mean, scores.longest)


def _clipping(
    settings: GRPOConfig, scores: GroupScores
) -> tuple[Tensor, Tensor, Tensor, float, float]:
    """What the surrogate reads, and whether a token is clipped."""
    scaled = settings.scale == "std"
    advantage = advantages(scores.rewards, scores.present, scaled=scaled)
    return scores.tokens, scores.sampling, advantage, settings.clip_low, settings.clip_high


def group_figures(config: AlignmentConfig, scores: GroupScores) -> dict[str, Tensor]:
    """What the log tells of every prompt, [B] each.

    drift: nats that the log-probability lies above the reference's; accuracy: share of the
    better-worse couples that the log ratios rank right; kl, clipped: means over tokens.
    """
    figures = {"log_prob/chosen": scores.of_chosen(scores.tokens.sum(-1))}
    if config.optimiser == "best_of_n":
        return figures
    ratios, rewards, present = scores.ratios, scores.rewards, scores.present
    better = (rewards[:, :, None] > rewards[:, None, :]) & present[:, :, None] & present[:, None, :]
    right = (ratios[:, :, None] > ratios[:, None, :]) & better
    drift = scores.of_chosen(ratios)
    figures |= {
        "drift/chosen": drift,
        "drift/others": (ratios.sum(1) - drift) / (present.sum(1) - 1),
        "accuracy": right.sum((1, 2)) / better.sum((1, 2)),
    }
    if config.optimiser == "grpo":
        clipped = is_clipped(*_clipping(config.grpo, scores)).float()
        distance = k3(scores.tokens, scores.reference)
        moved = (scores.tokens - scores.sampling).sum(-1)
        figures |= {
            "kl": token_mean(distance, scores.lengths, "prompt", scores.longest),
            "clipped": token_mean(clipped, scores.lengths, "prompt", scores.longest),
            "reward_gain": reward_gain(moved, rewards, present),
        }
    return figures
