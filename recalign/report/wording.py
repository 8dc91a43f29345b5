"""Numbers as people read them, and what an interval allows to say."""

from collections.abc import Mapping
from typing import Any, Literal

Tone = Literal["", "better", "worse", "same"]
VERDICTS: dict[Tone, str] = {
    "": "", "better": "a gain", "worse": "a loss", "same": "no difference shown",
}  # fmt: skip
LESS_IS_BETTER = {
    "popularity lift", "average popularity", "semantic error", "popular error", "wrong",
    "semantic hallucination", "popular hallucination",
}  # fmt: skip
ZERO_IS_BEST = {"popularity lift"}
"""Less is better only down to 0; and a share of a mean that may be near 0 says nothing."""
TOO_FEW = "too few users"
"""What stands in the place of an interval that was not told (FEWEST_USERS)."""
MEANINGS = {
    "NDCG": "How near the top the items really taken next are ranked; 1 is best.",
    "HR": "How often an item really taken next is ranked within the cut-off.",
    "MAP": "How early all items really taken next are ranked; 1 is best.",
    "MRR": "1 over the rank of the item really taken next, on average.",
    "popularity lift": "How much more popular the recommended items are than the taken ones; "
    "0 is best.",
}
"""Measures in plain words."""

RANKED = {  # what was ranked, as headings say it
    "catalogue": "Full catalogue",
    "uniform": "Candidate lists",
    "popularity": "Candidate lists drawn by popularity",
    "reranked": "Re-ranked lists",
}


def metric(value: float | None) -> str:
    """Four decimals: 0.0742; an en dash for a missing value."""
    return "–" if value is None else f"{value:.4f}".replace("-", "−")


def signed(value: float | None) -> str:
    """A difference: +0.0028, −0.0004, 0.0000."""
    if value is None:
        return "–"
    text = f"{abs(value):.4f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def shown(value: float) -> float:
    """The value that its printed four decimals stand for; what is said beside them follows it."""
    return float(f"{value:.4f}")


def interval(low: float | None, high: float | None, with_sign: bool = False) -> str:
    """[0.0701, 0.0783], or [−0.0004, +0.0060] for a difference."""
    show = signed if with_sign else metric
    return "" if low is None or high is None else f"[{show(low)}, {show(high)}]"


def tone_of(line: Mapping[str, Any]) -> Tone:
    """What the 95 % interval of a line of RESULTS says, by its bounds as they are printed.

    "better" and "worse" only where the interval lies clear of zero; "" where nothing is compared,
    of too few users for an interval, and where one of the means lies beyond what is best.
    """
    low, high = line["difference_low"], line["difference_high"]
    if low is None or high is None:
        return ""
    if line["measure"] in ZERO_IS_BEST and shown(_lower_mean(line)) < 0:
        return ""
    if line["measure"] in LESS_IS_BETTER:
        low, high = -high, -low
    if shown(low) > 0:
        return "better"
    return "worse" if shown(high) < 0 else "same"


def _lower_mean(line: Mapping[str, Any]) -> float:
    """Of the row's and its base row's."""
    return float(min(line["mean"], line["mean"] - line["difference"]))


def relative(line: Mapping[str, Any]) -> str:
    """The difference of a line of RESULTS as a share of the base row's mean: +4.0 %."""
    if line["relative"] is None or line["measure"] in ZERO_IS_BEST:
        return ""
    return percent(line["relative"], 1, True)


def reward_name(config: Mapping[str, Any]) -> str:
    """What a reward is, with its unit, from the settings of the rewards stage."""
    match config["reward"]:
        case "log_prob":
            return "log-probability, nats"
        case "ndcg_at_k" | "map_at_k" | "hr_at_k" as metric:
            return f"{metric.removesuffix('_at_k').upper()}@{config['k']}"
    return "NDCG"


def percent(share: float | None, digits: int = 1, with_sign: bool = False) -> str:
    """A share of 1 as a percentage: 8.2 %; +8.2 % for a relative difference."""
    if share is None:
        return "–"
    text = f"{100 * share:{'+' if with_sign else ''}.{digits}f} %"
    return text.replace("-", "−")


def count(n: int | None) -> str:
    """12,345; an en dash for a missing count."""
    return "–" if n is None else f"{n:,}"


def plural(n: int, noun: str) -> str:
    """1 user, 2 users."""
    return f"{count(n)} {noun}" + ("" if n == 1 else "s")


def duration(seconds: float) -> str:
    """0.4 s, 38 s, 4 min 07 s, 2 h 13 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def reasons(dropped: Mapping[str, int] | None) -> str:
    """12 too short, 3 unknown item; empty when nothing was dropped."""
    return ", ".join(f"{count(n)} {reason}" for reason, n in (dropped or {}).items() if n)
