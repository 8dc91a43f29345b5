"""DPO4Rec's rows: each comparison that the method's claim has to survive."""

from recalign.evaluation.result_table import ResultRow

POPULARITY, NO_REASONING = "Popularity", "SASRec, no reasoning"


def dpo4rec_rows(reasoners: list[str], refitted: bool = True) -> list[ResultRow]:
    """Rows from the weakest baseline to the aligned policy, in the order of the table.

    Popularity, reasoners and the base policy are compared with SASRec alone (what does a
    reasoning add?); shuffled reasonings with the base policy's own (does it matter whose they
    are?); the aligned policy with the base policy under the same decoding and recommender. The
    frozen recommender was fitted on the base policy's reasonings; the refitted one, if any, on
    the aligned policy's.
    """
    rows = [
        ResultRow(POPULARITY, "none", "none", "popularity", base=NO_REASONING),
        ResultRow(NO_REASONING, "none", "none", "sasrec"),
    ]
    rows += [ResultRow(f"Template {r}", r, "none", "frozen", base=NO_REASONING) for r in reasoners]
    own, label = policy_label("base", "sampled", "frozen"), "Base reasonings shuffled across users"
    rows.append(ResultRow(label, "shuffled", "sampled", "frozen", base=own))
    for recommender in ("frozen", "refitted") if refitted else ("frozen",):
        for policy in ("base", "aligned"):
            for decoding in ("greedy", "sampled"):
                label = policy_label(policy, decoding, recommender)
                base = policy_label("base", decoding, recommender)
                row_base = NO_REASONING if policy == "base" else base
                rows.append(ResultRow(label, policy, decoding, recommender, base=row_base))
    return rows


def policy_label(policy: str, decoding: str, recommender: str) -> str:
    """The label of a policy's row, such as "Aligned, greedy, refitted recommender"."""
    refitted = ", refitted recommender" if recommender == "refitted" else ""
    return f"{policy.capitalize()} policy, {decoding}{refitted}"
