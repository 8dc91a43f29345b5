"""Which of a user's reasonings are compared; who gives no pair is kept with the reason."""

import logging

import polars as pl

from recalign.config import PairsConfig
from recalign.errors import BadInputError, FailedRoundError
from recalign.metrics import TIE
from recalign.pairs.describe import describe_pairs
from recalign.pairs.other_pairs import other_pairs
from recalign.schemas import COMPLETIONS, Table, check_table

logger = logging.getLogger(__name__)

SKIPPED = Table("skipped.parquet", user_index=pl.Int32, reason=pl.String)
TOO_FEW = "fewer than two usable texts"
TIED = "all usable texts have the same reward"
SMALL = "margin not above min_margin"
BEYOND = "beyond max_pairs"
FEW_USERS = 20
"""With fewer, two at most are held out: their loss says little about when to stop."""


def select_pairs(
    rewards: pl.DataFrame, reasonings: pl.DataFrame, prompts: pl.DataFrame, config: PairsConfig
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, object]]:
    """Pairs as `config.select` says: (COMPLETIONS by user_index, SKIPPED, report).

    Usable are the sampled texts (sample >= 0; the greedy one is -1) that are not malformed; equal
    texts of a user are one text, that of the lowest sample number, unless `config.repeats`. Best
    and worst are the ones with the highest and the lowest reward; among equals the lowest sample
    number. A margin of at most max(min_margin, TIE) makes no pair. A pair's row holds all usable
    texts.
    BadInputError: a reasoning without reward, a reward that is not finite, a user without a prompt
    or with two.
    """
    samples = _joined(rewards, reasonings)
    usable = samples.filter(pl.col("malformed").is_null())
    if not config.repeats:
        usable = usable.unique(["user_index", "reasoning"], keep="first", maintain_order=True)
    extremes = _extremes(usable)
    floor = max(config.min_margin, TIE)
    pairs = extremes.filter((pl.col("n_texts") >= 2) & (pl.col("margin") > floor))
    if config.select != "best_worst":
        pairs = other_pairs(pairs, config, floor)
    pairs = pairs.sort(
        ["margin", "user_index", "chosen", "rejected"], descending=[True, *[False] * 3]
    )
    kept = pairs.head(config.max_pairs) if config.max_pairs else pairs
    skipped = _skipped(samples, extremes, pairs, kept)
    table = _completions(kept, prompts)
    return table, skipped, describe_pairs(samples, usable, extremes, table, skipped)


def require_pairs(pairs: pl.DataFrame, skipped: pl.DataFrame) -> None:
    """FailedRoundError, with the reasons of the others, for pairs of fewer than two users.

    A warning for fewer than FEW_USERS.
    """
    n_users = pairs["user_index"].n_unique()
    if n_users >= 2:  # one trains, one is held out
        if n_users < FEW_USERS:
            logger.warning(
                "pairs: of %d users only; alignment will follow these few, and its held-out loss "
                "will be mostly noise",
                n_users,
            )
        return
    reasons = skipped["reason"].value_counts().sort("count", descending=True).iter_rows()
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "nobody was left out"
    raise FailedRoundError(
        f"pairs: two users with a pair are needed to align, there are {n_users} (left out: {told}):"
        " look at the reasonings, sample more of them (reasonings.n_samples), lower"
        " pairs.min_margin or raise pairs.max_pairs; with rounds.inner_rounds, deal the users out"
        " into fewer parts"
    )


def _joined(rewards: pl.DataFrame, reasonings: pl.DataFrame) -> pl.DataFrame:
    """The sampled reasonings with their reward, sorted by user and sample."""
    samples = (
        reasonings.filter(pl.col("sample") >= 0)
        .join(rewards.select("user_index", "sample", "reward"), ["user_index", "sample"], "left")
        .sort("user_index", "sample")
    )
    bad = samples.filter(~pl.col("reward").is_finite().fill_null(False))
    if len(bad):
        user, sample = bad.row(0)[:2]
        raise BadInputError(
            f"pairs: {len(bad)} reasonings have no finite reward, the first is sample {sample} of "
            f"user_index {user}"
        )
    return samples


def _extremes(usable: pl.DataFrame) -> pl.DataFrame:
    """Texts of each user, and the places of best and worst: the lowest sample among equals."""
    reward = pl.col("rewards").list
    return (
        usable.group_by("user_index", maintain_order=True)
        .agg(
            n_texts=pl.len(),
            completions="reasoning",
            samples="sample",
            rewards="reward",
            chosen=pl.col("reward").arg_max().cast(pl.Int16),  # the first of equal ones
            rejected=pl.col("reward").arg_min().cast(pl.Int16),
        )
        .with_columns(margin=reward.get(pl.col("chosen")) - reward.get(pl.col("rejected")))
    )


def _skipped(
    samples: pl.DataFrame, extremes: pl.DataFrame, pairs: pl.DataFrame, kept: pl.DataFrame
) -> pl.DataFrame:
    """Users without a pair, with the reason."""
    reason = (
        pl.when(pl.col("n_texts").fill_null(0) < 2)
        .then(pl.lit(TOO_FEW))
        .when(pl.col("margin") <= TIE)
        .then(pl.lit(TIED))
        .when(pl.col("user_index").is_in(pairs["user_index"].implode()))
        .then(pl.lit(BEYOND))
        .otherwise(pl.lit(SMALL))
    )
    return (
        samples.select(pl.col("user_index").unique(maintain_order=True))
        .join(extremes, "user_index", "left")
        .join(kept, "user_index", "anti")
        .select("user_index", reason=reason)
        .sort("user_index")
    )


def _completions(pairs: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """COMPLETIONS of the extremes `pairs`, with each user's prompt."""
    if prompts["user_index"].is_duplicated().any():
        raise BadInputError("pairs: a user has more than one prompt")
    sorted_pairs = pairs.sort("user_index", "chosen", "rejected")
    joined = sorted_pairs.join(
        prompts.select("user_index", "prompt"), "user_index", "left", maintain_order="left"
    )
    lost = joined.filter(pl.col("prompt").is_null())
    if len(lost):
        raise BadInputError(f"pairs: user_index {lost['user_index'][0]} has no prompt")
    table = joined.with_columns(
        position=pl.lit(None, COMPLETIONS["position"]),
        rejected=pl.concat_list("rejected"),
        smoothing=pl.concat_list(pl.lit(0.0)),
    )
    return check_table(table, COMPLETIONS, "completions")
