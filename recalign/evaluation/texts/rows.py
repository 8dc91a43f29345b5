"""DPO4Rec's rows: each comparison that the method's claim has to survive."""

from collections.abc import Collection, Sequence

from recalign.evaluation.result_table import ResultRow

POPULARITY = "Popularity"
READERS = ("frozen", "refitted", "independent")


def dpo4rec_rows(
    reasoners: list[str],
    readers: Collection[str],
    oracle: str,
    mixed: Sequence[float] = (),
    kind: str = "sasrec",
) -> list[ResultRow]:
    """Rows from the weakest baseline to the aligned policy, in the order of the table.

    Popularity, reasoners and the base policy are compared with the oracle alone (what does a
    reasoning add?); shuffled reasonings with the base policy's own (does it matter whose they
    are?), and so are those with `mixed` shares of another user's sentences; the aligned policy with
    the base policy under the same decoding and recommender. The frozen recommender was fitted on
    the base policy's reasonings, the refitted one on the aligned policy's. The independent one, of
    another architecture, read the base policy's reasonings when it was fitted, and gave no reward;
    where the others are PRM, it is an adapter beside its sequence model.
    `readers` are those of the three that read texts here; `oracle` is the name of the sequence
    model. Where the recommender is of the kind "prm", it is compared with itself without texts, and
    the order in which the sequence model gives it the lists is a row.
    """
    alone = f"{'PRM' if kind == 'prm' else oracle}, no reasoning"
    rows = [ResultRow(POPULARITY, "none", "none", "popularity", base=alone)]
    if kind == "prm":
        rows.append(ResultRow(f"{oracle}'s order", "none", "none", "sasrec", base=alone))
    rows.append(ResultRow(alone, "none", "none", kind))
    rows += [ResultRow(f"Template {r}", r, "none", "frozen", base=alone) for r in reasoners]
    own, label = policy_label("base", "sampled", "frozen"), "Base reasonings shuffled across users"
    rows.append(ResultRow(label, "shuffled", "sampled", "frozen", base=own))
    for share in mixed:
        label, policy = f"Base reasonings, {100 * share:g} % another user's", mixed_policy(share)
        rows.append(ResultRow(label, policy, "sampled", "frozen", base=own))
    for recommender in (name for name in READERS if name in readers):
        for policy in ("base", "aligned"):
            for decoding in ("greedy", "sampled"):
                label = policy_label(policy, decoding, recommender)
                base = policy_label("base", decoding, recommender)
                first = None if recommender == "independent" else alone
                row_base = first if policy == "base" else base
                rows.append(ResultRow(label, policy, decoding, recommender, base=row_base))
    return rows


def mixed_policy(share: float) -> str:
    """What RESULTS calls the base policy with this share of another user's sentences."""
    return f"mixed {share:g}"


def policy_label(policy: str, decoding: str, recommender: str) -> str:
    """The label of a policy's row, such as "Aligned, greedy, refitted recommender"."""
    reader = "" if recommender == "frozen" else f", {recommender} recommender"
    return f"{policy.capitalize()} policy, {decoding}{reader}"
