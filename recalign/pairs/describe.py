"""What a set of pairs is like: ties, margins, lengths, duplicates, and chosen against chance."""

import polars as pl

from recalign.metrics import TIE

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def flat_pairs(completions: pl.DataFrame) -> pl.DataFrame:
    """user_index, texts and rewards of chosen and (first) rejected, and the margin between them."""
    chosen, rejected = pl.col("chosen"), pl.col("rejected").list.first()
    texts, rewards = pl.col("completions").list, pl.col("rewards").list
    flat = completions.select(
        "user_index",
        chosen=texts.get(chosen),
        rejected=texts.get(rejected),
        chosen_reward=rewards.get(chosen),
        rejected_reward=rewards.get(rejected),
    )
    return flat.with_columns(margin=pl.col("chosen_reward") - pl.col("rejected_reward"))


def describe_pairs(
    samples: pl.DataFrame,
    usable: pl.DataFrame,
    extremes: pl.DataFrame,
    completions: pl.DataFrame,
    skipped: pl.DataFrame,
) -> dict[str, object]:
    """Plain figures for the manifest and the report.

    samples: all sampled texts; usable: those that take part; extremes: one row per
    user with a usable text. tie_rate: of the users with two usable texts, the share without a
    margin; duplicate_rate: of the well-formed samples, the share that repeats a lower sample of its
    user; reward_chosen, reward_rejected, reward_random: mean reward of what a user's pairs choose
    and reject, and of a random usable text, each over the users that gave a pair.
    """
    pairs = flat_pairs(completions)
    comparable = extremes.filter(pl.col("n_texts") >= 2)
    well_formed = samples["malformed"].null_count()
    distinct = usable.select("user_index", "reasoning").n_unique()
    paired = usable.join(pairs.select("user_index"), "user_index", "semi")
    drawn = _user_means(paired, "reward")
    judged = _user_means(pairs, "chosen_reward", "rejected_reward")
    reasons = skipped["reason"].value_counts(sort=True)
    return {
        "n_pairs": len(pairs),
        "n_users": samples["user_index"].n_unique(),
        "n_samples": len(samples),
        "skipped": dict(reasons.sort("reason").iter_rows()),
        "tie_rate": _share(len(comparable.filter(pl.col("margin") <= TIE)), len(comparable)),
        "malformed_rate": _share(len(samples) - well_formed, len(samples)),
        "duplicate_rate": _share(well_formed - distinct, well_formed),
        "margin_quantiles": {
            str(q): pairs["margin"].quantile(q, "linear") for q in QUANTILES if len(pairs)
        },
        "chosen_words": _mean_words(pairs["chosen"]),
        "rejected_words": _mean_words(pairs["rejected"]),
        "reward_chosen": judged["chosen_reward"].mean(),
        "reward_rejected": judged["rejected_reward"].mean(),
        "reward_random": drawn["reward"].mean(),
    }


def _user_means(table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The mean of each column per user, in the order of users: it decides a sum's last digits."""
    return table.group_by("user_index").agg(pl.col(columns).mean()).sort("user_index")


def _mean_words(texts: pl.Series) -> float | None:
    mean = texts.str.count_matches(r"\S+").mean()
    return None if mean is None else float(mean)  # type: ignore[arg-type]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
