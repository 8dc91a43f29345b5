"""Rows of an evaluation that a killed run had finished: read, not evaluated again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recalign.artifacts.digests import whole_file
from recalign.evaluation.texts.evaluate import Evaluated
from recalign.metric_columns import Metric


def evaluated_once(file: Path, evaluate: Callable[[], Evaluated]) -> Evaluated:
    """What `file` (.npz) holds; where there is none, what `evaluate` gives, kept there."""
    if not file.exists():
        made = evaluate()
        named = json.dumps(list(made.values))
        with whole_file(file) as out:
            values = np.stack(list(made.values.values()))
            np.savez(out, metrics=np.array(named), values=values, recommended=made.recommended)
    with np.load(file) as kept:
        metrics = [Metric(*given) for given in json.loads(str(kept["metrics"]))]
        return Evaluated(dict(zip(metrics, kept["values"], strict=True)), kept["recommended"])
