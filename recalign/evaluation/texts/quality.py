"""Quality of the reasonings themselves: form for any text, and truth on the synthetic world."""

from collections.abc import Callable, Mapping

import polars as pl

from recalign.schemas import FACETS, REASONINGS, TEXTS, TRUTH, check_table

Parse = Callable[[str], dict[str, list[str]] | None]
"""What a text states: values by facet, or None where it cannot be read."""

ALL = "all"
DECODINGS = {"greedy": True, "sampled": False}


def text_sets(written: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The greedy and the sampled REASONINGS of each policy, by their label in TEXTS."""
    return {
        f"{name} {decoding}": table.filter((pl.col("sample") < 0) == greedy)
        for name, table in written.items()
        for decoding, greedy in DECODINGS.items()
    }


def text_quality(label: str, reasonings: pl.DataFrame) -> pl.DataFrame:
    """TEXTS, one row, of a table of REASONINGS."""
    texts = check_table(reasonings, REASONINGS, label)
    if texts.is_empty():
        raise ValueError(f"{label}: there are no reasonings to describe")
    within = texts.group_by("user_index").agg(pl.col("reasoning").n_unique() / pl.len())
    within = within.sort("user_index")  # a mean's last digits depend on the order of its sum
    return pl.DataFrame(
        {
            "texts": label,
            "n_users": len(within),
            "n_texts": len(texts),
            "words": texts["reasoning"].str.count_matches(r"\S+").mean(),
            "tokens": texts["n_tokens"].mean(),
            "distinct": texts["reasoning"].n_unique() / len(texts),
            "distinct_within_user": within["reasoning"].mean(),
            "valid": texts["malformed"].is_null().mean(),
        },
        schema=TEXTS,
    )


def malformed_reasons(reasonings: pl.DataFrame) -> dict[str, int]:
    """How many texts are malformed, by reason, the most frequent first."""
    counts = reasonings.drop_nulls("malformed")["malformed"].value_counts()
    ordered = counts.sort(["count", "malformed"], descending=[True, False])
    return dict(ordered.iter_rows())


def liked_values(truth: pl.DataFrame, cutoffs: pl.DataFrame) -> pl.DataFrame:
    """Values each user likes at the cut-off: columns user_index, facet, value.

    truth is TRUTH; cutoffs has one row (user_index, cutoff) per user. The tastes in force are the
    user's rows with the largest from_position <= cutoff; only positive weights are liked.
    """
    known = check_table(truth, TRUTH, "truth").join(
        cutoffs.select("user_index", "cutoff"), on="user_index"
    )
    latest = pl.col("from_position").max().over("user_index")
    return (
        known.filter(pl.col("from_position") <= pl.col("cutoff"))
        .filter((pl.col("from_position") == latest) & (pl.col("weight") > 0))
        .select("user_index", facet="name", value=_comparable(pl.col("value")))
        .unique(maintain_order=True)
    )


def stated_values(reasonings: pl.DataFrame, parse: Parse) -> pl.DataFrame:
    """Values each text states, once each: columns user_index, sample, facet, value."""
    rows = [
        (text, facet, value)
        for text in reasonings["reasoning"].unique(maintain_order=True)
        for facet, values in (parse(text) or {}).items()
        for value in values
    ]
    schema = dict.fromkeys(("reasoning", "facet", "value"), pl.String)
    stated = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        _comparable(pl.col("value"))
    )
    texts = reasonings.select("user_index", "sample", "reasoning")
    return texts.join(stated.unique(maintain_order=True), on="reasoning").drop("reasoning")


def facet_quality(
    label: str, reasonings: pl.DataFrame, liked: pl.DataFrame, parse: Parse
) -> pl.DataFrame:
    """FACETS: precision and recall of the stated values, per facet and over all facets.

    Every user counts the same: a user's precision is that of the values stated in all of the
    user's texts together, and recall is the mean over texts. A text that cannot be read states
    nothing, so it lowers recall and leaves precision alone.
    """
    users = reasonings.group_by("user_index").agg(samples=pl.len()).sort("user_index")
    liked = liked.join(users, on="user_index", how="semi")
    stated = stated_values(reasonings, parse).join(users, on="user_index", how="semi")
    hits = stated.join(liked, on=["user_index", "facet", "value"], how="semi")
    facets = sorted({*liked["facet"].unique(), *stated["facet"].unique()})
    rows = []
    for facet in [*facets, ALL]:
        counts = users
        for name, table in (("stated", stated), ("hits", hits), ("liked", liked)):
            found = _per_user(table, facet, name)
            counts = counts.join(found, on="user_index", how="left", maintain_order="left")
        counts = counts.fill_null(0)
        # 0 / 0 is null: a user who states or likes nothing has no precision or recall.
        rows.append(
            counts.select(
                texts=pl.lit(label),
                facet=pl.lit(facet),
                stated=(pl.col("stated") / pl.col("samples")).mean(),
                precision=(pl.col("hits") / pl.col("stated")).fill_nan(None).mean(),
                recall=(pl.col("hits") / (pl.col("samples") * pl.col("liked")))
                .fill_nan(None)
                .mean(),
                n_users=pl.len().cast(pl.Int64),
            )
        )
    return check_table(pl.concat(rows), FACETS, "facets")


def _per_user(table: pl.DataFrame, facet: str, name: str) -> pl.DataFrame:
    """Rows of each user in one facet, or in all: columns user_index and `name`."""
    chosen = table if facet == ALL else table.filter(pl.col("facet") == facet)
    return chosen.group_by("user_index").agg(pl.len().alias(name))


def _comparable(value: pl.Expr) -> pl.Expr:
    """One word per value, as texts write it; case does not matter."""
    return value.str.to_lowercase().str.replace_all(r"[\s.;=]+", "-").str.strip_chars("-")
