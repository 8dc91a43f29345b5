"""How DPO4Rec's page opens: every sentence is built from the run's numbers."""

from collections.abc import Sequence

import polars as pl

from recalign.metric_columns import FEWEST_USERS, Metric, cells, primary_of
from recalign.report.content import Card, DataSet, Figure, Opening, Round
from recalign.report.forest import forest
from recalign.report.result_lines import Line, bounds, headline_metrics, metric_cards
from recalign.report.sections import HOLLOW, with_data
from recalign.report.wording import (
    RANKED,
    VERDICTS,
    count,
    metric,
    plural,
    relative,
    signed,
    tone_of,
)

MAIN = {"base", "aligned", "shuffled"}  # policies of the main comparisons
N_CARDS = 4


def opening(results: pl.DataFrame, data: DataSet, rounds: Sequence[Round]) -> Opening:
    """The verdict about alignment, its comparisons and its metrics.

    They are in NDCG@10, or NDCG@5 of re-ranked lists, named before the results are seen; where
    it was not measured, in full-depth NDCG. Main comparisons are those with the recommender
    fitted before alignment and with the one that gave no reward. results: as `told_intervals` are.
    """
    primary = primary_of(results)
    shown = headline_metrics(results, primary, primary.lists)[0]
    lines = shown.lines(results).to_dicts()
    answers = [line for decoding in ("greedy", "sampled") if (line := _aligned(lines, decoding))]
    tones = {tone_of(line) for line in answers}
    others = (pl.col("policy") == "aligned") & (pl.col("recommender") == "independent")
    main = pl.col("policy").is_in(MAIN) & (pl.col("recommender") == "frozen") | others
    picture = forest(results.filter(main).sort("policy", maintain_order=True), shown)
    caption = (
        "How far each row lies from the row it is compared with, and the 95 % interval of that "
        f"distance. {HOLLOW}"
    )
    told = not answers or answers[0]["n_users"] >= FEWEST_USERS
    sentences = [
        _what_alignment_changed(answers, shown),
        _second_opinion(lines, answers),
        _what_reasonings_add(lines),
    ]
    return Opening(
        what_was_run(data, rounds),
        verdict(answers, shown),
        tones.pop() if len(tones) == 1 else "",
        Figure(picture, caption) if picture else None,
        _cards(results, answers),
        f"{answers[0]['row']}, against {answers[0]['base']}:" if answers else "",
        notes=[sentence for sentence in sentences if sentence and told],
    )


def verdict(answers: Sequence[Line], shown: Metric) -> str:
    """Whether alignment paid, from the aligned policy's lines; empty without any."""
    if not answers:
        return ""
    users = f"on {count(answers[0]['n_users'])} test users"
    said = {tone_of(line) for line in answers}
    if said == {""}:
        return f"What alignment changed cannot be told {users}: they are too few for an interval."
    if said == {"same"}:
        return f"No gain from alignment is shown in {shown.name} {users}."
    if said == {"better"}:
        return f"Alignment improved {shown.name} {users}."
    if said == {"worse"}:
        return f"Alignment made {shown.name} worse {users}."
    parts = " and ".join(
        f"{VERDICTS[tone_of(one)]} with {one['decoding']} texts" for one in answers
    )
    return f"Alignment: {parts}, in {shown.name} {users}."


def _cards(results: pl.DataFrame, answers: Sequence[Line]) -> list[Card]:
    """The first aligned row in its main metrics, over the catalogue and over candidate lists."""
    if not answers:
        return []
    by_ranking = [headline_metrics(results, primary_of(results), lists) for lists in RANKED]
    first, *others = [metrics for metrics in by_ranking if metrics]
    names = [*first[: N_CARDS - bool(others)], *(one for rest in others for one in rest)]
    lined = cells(results)
    return metric_cards([lined[answers[0]["row"], name] for name in names[:N_CARDS]])


def what_was_run(data: DataSet, rounds: Sequence[Round]) -> str:
    """What went in, how often the policy was aligned, and which round was kept."""
    aligned = [one for one in rounds if one.number > 0]
    if not aligned:
        return f"{with_data(data)} no round of alignment was run."
    n_aligned, by_pairs = sum(one.n_aligned or 0 for one in aligned), aligned[0].by_pairs
    learned = plural(n_aligned, "pair" if by_pairs else "prompt") + " of texts" * by_pairs
    on = f" on {learned}" if n_aligned else ""
    return (
        f"{with_data(data)} a language model that writes what each user likes was aligned in "
        f"{plural(len(aligned), 'round')}{on}, so that a recommender that reads its texts "
        f"ranks better{_which_round(rounds)}."
    )


def _which_round(rounds: Sequence[Round]) -> str:
    kept = next((one for one in rounds if one.kept and one.number > 0), None)
    if kept is None:
        return ""
    base = next((one.valid for one in rounds if one.number == 0), None)
    text = f"; round {kept.number} was kept"
    if kept.valid is None or base is None:
        return text
    if kept.valid > base:
        return f"{text} by its validation ({metric(kept.valid)} against {metric(base)} before)"
    return (
        f"{text} although its validation ({metric(kept.valid)}) does not beat the base policy's "
        f"({metric(base)})"
    )


def _what_alignment_changed(answers: Sequence[Line], shown: Metric) -> str:
    """Aligned against base with the frozen recommender, greedy and sampled."""
    parts = []
    for line in answers:
        share = f", {told}" if (told := relative(line)) else ""
        parts.append(
            f"{signed(line['difference'])} with {line['decoding']} texts ({metric(line['mean'])}"
            f"{share}, 95 % interval {bounds(line)}: {VERDICTS[tone_of(line)]})"
        )
    if not parts:
        return ""
    users = count(answers[0]["n_users"])
    return f"On {users} test users alignment changed {shown.name} by {' and '.join(parts)}."


def _second_opinion(lines: Sequence[Line], answers: Sequence[Line]) -> str:
    """What the recommender that gave no reward says of alignment; an alarm where it denies it."""
    parts, denied = [], False
    for own in answers:
        other = _aligned(lines, own["decoding"], "independent")
        if other is not None:
            change = f"{signed(other['difference'])} with {own['decoding']} texts {bounds(other)}"
            parts.append(f"{change}: {VERDICTS[tone_of(other)]}")
            denied |= tone_of(own) == "better" and tone_of(other) == "worse"
    if not parts:
        return ""
    said = f"An independent recommender that gave no reward sees {'; '.join(parts)}."
    alarm = "Alarm: what the rewarding recommender gains, an independent one loses, a sign that "
    return f"{alarm}its errors were learned. {said}" if denied else said


def _what_reasonings_add(lines: Sequence[Line]) -> str:
    """The recommender alone, what the base policy's texts add to it, and the other reasoners."""
    alone = _line(lines, policy="none", base=None)
    if alone is None:
        return ""
    text = f"Without any text the recommender reaches {metric(alone['mean'])}"
    for decoding in ("greedy", "sampled"):
        line = _line(lines, policy="base", decoding=decoding, recommender="frozen")
        if line is not None and line["base"] == alone["row"]:
            text += (
                f"; the base policy's {decoding} texts change that by "
                f"{signed(line['difference'])} {bounds(line)} ({VERDICTS[tone_of(line)]})"
            )
            break
    shuffled = _line(lines, policy="shuffled")
    if shuffled is not None:
        text += (
            "; the base policy's sampled texts shuffled across users reach "
            f"{metric(shuffled['mean'])}, {signed(shuffled['difference'])} {bounds(shuffled)} "
            f"({VERDICTS[tone_of(shuffled)]}) against the users' own"
        )
    reasoners = [one for one in lines if one["decoding"] == "none" and one["policy"] != "none"]
    if reasoners:
        best = max(reasoners, key=lambda line: line["mean"])
        text += f"; the best reasoner without an LLM ({best['row']}) reaches {metric(best['mean'])}"
    return text + "."


def _aligned(lines: Sequence[Line], decoding: str, recommender: str = "frozen") -> Line | None:
    line = _line(lines, policy="aligned", decoding=decoding, recommender=recommender)
    return line if line is not None and line["difference"] is not None else None


def _line(lines: Sequence[Line], **wanted: str | None) -> Line | None:
    return next((one for one in lines if all(one[k] == v for k, v in wanted.items())), None)
