"""Fingerprints never guess and never move."""

import math
import os
import subprocess
import sys

import pytest

from recalign.artifacts.fingerprint import canonical
from recalign.artifacts.identity import Identity
from recalign.config import Config, DPO4RecConfig, InteractionsConfig, RosePOConfig, Runtime


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", {1: "a"}, 1 + 2j])
def test_a_value_without_one_spelling_is_refused(value):
    with pytest.raises(TypeError):
        canonical(value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="finite"):
        canonical({"x": value})


def test_the_order_of_keys_does_not_matter_and_types_do():
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical(1) != canonical(1.0) != canonical("1")
    assert canonical(True) != canonical(1)


def test_every_part_of_the_identity_changes_the_fingerprint():
    known = Identity("oracle", 1, {"a": 1}, {"x": "f"}, {"raw": "d"})
    changed = [
        Identity("splits", 1, {"a": 1}, {"x": "f"}, {"raw": "d"}),
        Identity("oracle", 2, {"a": 1}, {"x": "f"}, {"raw": "d"}),
        Identity("oracle", 1, {"a": 2}, {"x": "f"}, {"raw": "d"}),
        Identity("oracle", 1, {"a": 1}, {"y": "f"}, {"raw": "d"}),
        Identity("oracle", 1, {"a": 1}, {"x": "g"}, {"raw": "d"}),
        Identity("oracle", 1, {"a": 1}, {"x": "f"}, {"raw": "e"}),
    ]
    assert len({one.fingerprint for one in (known, *changed)}) == 7


def test_processes_with_other_hash_seeds_agree():
    code = (
        "from recalign.artifacts.identity import Identity\n"
        "from recalign.config import DPO4RecConfig\n"
        "print(Identity('all', 1, DPO4RecConfig().identity(), {}, {}).fingerprint)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    assert len(seen.pop().strip()) == 32


def other_value(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, value[0] if value else "x"]
    return value + "x"


def leaves(config: Config, prefix=()):
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def replaced(config: Config, path, value):
    name, *rest = path
    inner = replaced(getattr(config, name), rest, value) if rest else value
    return config.model_copy(update={name: inner})


PLACES = {"interactions.raw_folder", "interactions.sha256"}
"""Where data comes from, not what it is: the files' digests count."""


def without_effect(config):
    """Settings that can be changed without changing the identity."""
    whole = canonical(config.identity())
    return {
        ".".join(path)
        for path, value in leaves(config)
        if canonical(replaced(config, path, other_value(value)).identity()) == whole
    }


def not_counting(config: Config, prefix=""):
    """Settings that say themselves that they do not count."""
    found: set[str] = set()
    for name, value in config:
        if isinstance(value, Config):
            inner = not_counting(value, f"{prefix}{name}.")
            every = {f"{prefix}{name}.{'.'.join(path)}" for path, _ in leaves(value)}
            found |= inner if config.counts(name) else every
        elif not config.counts(name):
            found.add(prefix + name)
    return found


def test_every_setting_of_dpo4rec_changes_the_identity_unless_it_says_that_it_does_not_count():
    config = DPO4RecConfig()
    asked = {
        "reasonings.template", "policy.bootstrap.template", "item_reasonings.template",
        "recommender.others_text",
    }  # fmt: skip
    greedy = {f"item_reasonings.{name}" for name in ("temperature", "top_k", "top_p", "seed")}
    templates = asked | greedy
    # kept or not; told by its inputs; looked at when it is made
    unread = {"alignment.allow_worse", "evaluation.independent", "recommender.guard"}
    assert without_effect(config) == PLACES | templates | unread | not_counting(config)
    assert {"alignment.gamma", "policy.model", "interactions.amazon.year"} <= not_counting(config)


def test_every_setting_of_rosepo_changes_the_identity_unless_it_says_that_it_does_not_count():
    config = RosePOConfig()
    unread = {"sft.template", "alignment.reference", "alignment.allow_worse"}
    # the rows that are compared tell, and its inputs
    unread |= {"recommendations.controls", "recommendations.validated"}
    assert without_effect(config) == PLACES | unread | not_counting(config)
    assert {"rejections.mix.random", "sft.n_candidates"} <= not_counting(config)


@pytest.mark.parametrize(
    ("setting", "reader"),
    [
        ("rejections.mix.semantic", ("rejections.strategy", "mix")),
        ("smoothing.constant", ("smoothing.estimator", "constant")),
        ("smoothing.seed", ("smoothing.estimator", "permuted")),
    ],
)
def test_a_setting_counts_as_soon_as_something_reads_it(setting, reader):
    name, value = reader
    config = replaced(RosePOConfig(), name.split("."), value)
    assert setting not in without_effect(config)


def test_the_settings_of_another_source_do_not_matter_but_the_chosen_ones_do():
    amazon = InteractionsConfig(source="amazon")
    other = amazon.model_copy(
        update={"amazon": amazon.amazon.model_copy(update={"category": "Books"})}
    )
    assert canonical(amazon.identity()) != canonical(other.identity())


def test_no_stage_reads_the_runtime():
    assert not set(Runtime.model_fields) & set(DPO4RecConfig.model_fields)
