"""The run in three sentences, built from its numbers: a gain is claimed only where one is shown."""

from typing import Any

from recalign.metric_columns import CATALOGUE, Metric
from recalign.report.content import DataSet, ReportContent
from recalign.report.tables import headline_metrics
from recalign.report.wording import count, interval, metric, percent, plural, shown, signed

Cell = dict[str, Any]  # one line of RESULTS


def summary(content: ReportContent) -> list[str]:
    """What was run, what alignment changed, what reasonings are worth; fewer if not measured."""
    sentences = [_what_was_run(content)]
    if content.results is not None and not content.results.is_empty():
        name = headline_metrics(content.results, content.primary, CATALOGUE)[0]
        cells = name.lines(content.results).to_dicts()
        sentences += [_what_alignment_changed(cells, name), _what_reasonings_add(cells)]
    return [sentence for sentence in sentences if sentence]


def verdict(low: float, high: float) -> str:
    """What a 95 % interval of a difference allows to say, by its bounds as they are printed."""
    if shown(low) > 0:
        return "a gain"
    if shown(high) < 0:
        return "a loss"
    return "no difference shown, as the interval includes zero"


def _what_was_run(content: ReportContent) -> str:
    aligned = [one for one in content.rounds if one.number > 0]
    where = f"{with_data(content.data)} " if content.data else ""
    if not aligned:
        return f"{where}no round of alignment was run." if where else ""
    n_pairs = sum(one.n_pairs or 0 for one in aligned)
    pairs = f" on {plural(n_pairs, 'pair')} of reasonings" if n_pairs else ""
    sentence = f"{where}the policy was aligned in {plural(len(aligned), 'round')}{pairs}"
    sentence += _which_round(content) + "."
    return sentence[0].upper() + sentence[1:]


def with_data(data: DataSet) -> str:
    """How a sentence about a run begins: what went in."""
    return (
        f"With {plural(data.n_interactions, 'interaction')} of {plural(data.n_users, 'user')} "
        f"and {plural(data.n_items, 'item')} ({data.name})"
    )


def _which_round(content: ReportContent) -> str:
    kept = next((one for one in content.rounds if one.kept and one.number > 0), None)
    if kept is None:
        return ""
    base = next((one.valid for one in content.rounds if one.number == 0), None)
    text = f", and round {kept.number} was kept"
    if base is None or kept.valid is None:
        return text
    if kept.valid > base:
        return f"{text} by its validation ({metric(kept.valid)} against {metric(base)} before)"
    return (
        f"{text} although its validation ({metric(kept.valid)}) does not beat the base policy's "
        f"({metric(base)})"
    )


def _what_alignment_changed(cells: list[Cell], metric_shown: Metric) -> str:
    """Aligned against base with the frozen recommender, greedy and sampled."""
    parts = []
    for decoding in ("greedy", "sampled"):
        row = _cell(cells, policy="aligned", decoding=decoding, recommender="frozen")
        if row is None or row["difference"] is None:
            continue
        relative = "" if row["relative"] is None else f", {percent(row['relative'], 1, True)}"
        bounds = interval(row["difference_low"], row["difference_high"], with_sign=True)
        parts.append(
            f"{signed(row['difference'])} with {decoding} reasonings "
            f"({metric(row['mean'])}{relative}, 95 % interval {bounds}: "
            f"{verdict(row['difference_low'], row['difference_high'])})"
        )
    if not parts:
        return ""
    users = count(cells[0]["n_users"])
    return (
        f"On {users} test users alignment changed {metric_shown.name} by "
        + " and ".join(parts)
        + "."
    )


def _what_reasonings_add(cells: list[Cell]) -> str:
    """SASRec alone, what the base policy's reasonings add to it, and the other reasoners."""
    alone = _cell(cells, policy="none", recommender="sasrec")
    if alone is None:
        return ""
    text = f"Without any reasoning SASRec reaches {metric(alone['mean'])}"
    for decoding in ("greedy", "sampled"):
        row = _cell(cells, policy="base", decoding=decoding, recommender="frozen")
        if row is not None and row["base"] == alone["row"]:
            low, high = row["difference_low"], row["difference_high"]
            text += (
                f"; the base policy's {decoding} reasonings change that by "
                f"{signed(row['difference'])} {interval(low, high, with_sign=True)} "
                f"({verdict(low, high)})"
            )
            break
    shuffled = _cell(cells, policy="shuffled")
    if shuffled is not None:
        text += f", the same policy's shuffled across users reach {metric(shuffled['mean'])}"
    reasoners = [cell for cell in cells if cell["decoding"] == "none" and cell["policy"] != "none"]
    if reasoners:
        best = max(reasoners, key=lambda cell: cell["mean"])
        text += f", and the best reasoner without an LLM ({best['row']}) {metric(best['mean'])}"
    return text + "."


def _cell(cells: list[Cell], **wanted: str) -> Cell | None:
    return next((c for c in cells if all(c[key] == value for key, value in wanted.items())), None)
