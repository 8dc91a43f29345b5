"""What a flow calls the runs of a stage that it calls several times, told from the manifests."""

from collections.abc import Mapping, Sequence

from recalign.artifacts.manifest import Manifest
from recalign.config import ComparedRow


def rosepo_labels(
    compared: Sequence[ComparedRow], inputs: Mapping[str, Manifest], found: Sequence[Manifest]
) -> dict[str, str]:
    """Label by fingerprint, with the strategy of the pairs or the row that an artifact is for.

    inputs: what the comparison was given, by name (`row_i` and `valid_i` are those of row i);
    found: all that it stands on.
    """
    labels = {}
    for number, row in enumerate(compared):
        for role, phase in (("valid", "valid"), ("row", "test")):
            judged = inputs[f"{role}_{number}"]
            labels[judged.fingerprint] = f"recommendations for {phase}, {row.label}"
            if "alignment" in judged.inputs:
                labels[judged.inputs["alignment"].fingerprint] = f"alignment, {row.label}"
    strategies = {
        one.fingerprint: one.config["strategy"] for one in found if one.stage == "rejections"
    }
    for one in found:
        key = one.inputs["rejections"].fingerprint if "rejections" in one.inputs else ""
        strategy = strategies.get(key) or strategies.get(one.fingerprint)
        if strategy:
            doubt = f" {one.config['estimator']}" if "estimator" in one.config else ""
            labels[one.fingerprint] = f"{one.stage}, {strategy}{doubt}"
    return labels


def dpo4rec_labels(inputs: Mapping[str, Manifest], found: Sequence[Manifest]) -> dict[str, str]:
    """Label by fingerprint, with the round whose policy an artifact is made with or leads to.

    inputs: the report's inputs named like `alignment_1`; found: all that the report stands on.
    """
    labels, policies, written = {}, {}, {}
    for role, made in inputs.items():
        stage, _, number = role.rpartition("_")
        when = f"round {number}" if int(number) else "base"
        labels[made.fingerprint] = f"{stage}, {when}"
        if stage == "alignment":
            policies[made.fingerprint] = when
    for one in found:
        if one.stage == "reasonings":
            aligned = one.inputs.get("alignment")
            when = policies[aligned.fingerprint] if aligned else "base"
            written[one.fingerprint] = when
            labels[one.fingerprint] = f"reasonings for {one.config['phase']}, {when}"
    for one in found:
        if one.stage == "recommender":
            when = written[one.inputs["reasonings"].fingerprint]
            labels[one.fingerprint] = f"recommender, {when}"
    return labels
