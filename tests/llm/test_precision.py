"""The number format of weights, where the machine is asked."""

import logging
import re

from recalign.config import PolicyConfig
from recalign.llm.precision import resolved_dtype


def test_auto_takes_the_format_that_was_measured_to_be_faster_and_says_so(caplog):
    caplog.set_level(logging.INFO, "recalign.llm.precision")
    config = PolicyConfig(kind="huggingface", model="here", dtype="auto")
    chosen = resolved_dtype(config, "cpu")
    told = re.search(r"float32 (\d+) GFLOP/s, bfloat16 (\d+) GFLOP/s .*, so (\w+) is", caplog.text)
    assert told is not None
    speeds = {"float32": int(told[1]), "bfloat16": int(told[2])}
    assert told[3] == chosen
    assert speeds[chosen] == max(speeds.values()) > 0


def test_a_format_that_is_named_is_not_measured(caplog):
    caplog.set_level(logging.INFO, "recalign.llm.precision")
    config = PolicyConfig(kind="huggingface", model="here", dtype="bfloat16")
    assert resolved_dtype(config, "cpu") == "bfloat16"
    assert not caplog.text
