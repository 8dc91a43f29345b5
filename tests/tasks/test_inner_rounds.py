"""A round in parts: the policy that learned from one part of the users samples the next."""

import polars as pl
import pytest

from flows.dpo4rec import stages
from recalign.card_facts import facts_of
from recalign.config import DPO4RecConfig, RoundsConfig
from recalign.errors import BadInputError
from recalign.schemas import COMPLETIONS, PROMPTS, REASONINGS
from recalign.splits.phases import Phase, phase_of
from recalign.stored import first_of
from recalign.training.log_table import LOG
from tasks.report import _rounds
from tasks.tables import read_tables
from tests.tasks.tiny_run import CONFIG, direct


def in_parts(config: DPO4RecConfig, parts: int) -> DPO4RecConfig:
    return config.model_copy(update={"rounds": RoundsConfig(n=1, inner_rounds=parts)})


def test_every_part_is_sampled_by_the_policy_of_the_part_before_and_users_are_dealt_out(copy):
    walk = direct(copy)
    stages(walk, in_parts(CONFIG, 2))
    parts = ["round 1, part 1 of 2", "round 1, part 2 of 2"]
    first, second = (walk.artifact(f"reasonings for reward, {part}") for part in parts)
    inner, outer = (walk.artifact(f"alignment, {name}") for name in (parts[0], "round 1"))
    assert first.manifest.inputs["policy"].fingerprint == walk.done["policy"].fingerprint
    assert second.manifest.inputs["policy"] == inner.reference == outer.manifest.inputs["start"]
    assert first_of(outer, str(copy)).reference.fingerprint == walk.done["policy"].fingerprint

    tables = read_tables(walk.artifact("interactions"), walk.artifact("splits"))
    everyone = phase_of(tables.windows, "reward").users.tolist()
    dealt = [PROMPTS.read(made)["user_index"].to_list() for made in (first, second)]
    assert dealt == [everyone[::2], everyone[1::2]]
    written = [REASONINGS.read(made)["user_index"].unique().to_list() for made in (first, second)]
    assert [sorted(users) for users in written] == dealt

    told = walk.artifact("report").manifest.inputs
    given = {name: walk.store.open(made) for name, made in told.items()}
    _, shown = _rounds(given, given["aligned"])
    pairs, logs = ([walk.artifact(f"{stage}, {name}") for name in (parts[0], "round 1")]
                   for stage in ("pairs", "alignment"))  # fmt: skip
    assert shown.n_users == len(everyone)
    assert shown.n_pairs == sum(COMPLETIONS.read(made).height for made in pairs)
    final = walk.artifact("report").manifest
    assert facts_of(walk.store, str(copy), final, outer, "", "").rounds.startswith("1 round of")
    steps = [pl.read_parquet(made.path(LOG))["step"].to_list() for made in logs]
    assert shown.curve is not None
    assert shown.curve["step"].to_list() == steps[0] + [steps[0][-1] + n for n in steps[1]]
    assert shown.kept


def test_a_pair_of_texts_that_answer_several_questions_is_one_pair(copy):
    walk = direct(copy)
    stages(walk, CONFIG)
    pairs = walk.artifact("pairs, round 1")
    answers = COMPLETIONS.read(pairs)  # each twice, as to two questions
    told = walk.artifact("report").manifest.inputs
    given = {name: walk.store.open(made) for name, made in told.items()}
    pl.concat([answers, answers]).write_parquet(pairs.path(COMPLETIONS.file))
    _, shown = _rounds(given, given["aligned"])
    assert shown.n_pairs == answers.height
    assert shown.margins is not None
    assert len(shown.margins) == 2 * answers.height


def test_one_part_is_what_was_always_done(finished, copy):
    walk = direct(copy)
    stages(walk, in_parts(CONFIG, 1))
    assert walk.done == finished.done


def test_more_parts_than_users_are_refused_by_the_settings_name():
    tables = pl.DataFrame({"user": [0, 1]})["user"].to_numpy()
    phase = Phase(tables, tables, tables)
    assert [phase.part(number, 2).users.tolist() for number in (1, 2)] == [[0], [1]]
    with pytest.raises(
        BadInputError, match=r"rounds\.inner_rounds: 2 users cannot be dealt out into 3"
    ):
        phase.part(1, 3)
