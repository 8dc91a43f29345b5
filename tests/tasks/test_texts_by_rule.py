"""The recommender also learns from texts by rule about users whom the LLM is not asked about."""

from dataclasses import replace

import polars as pl
import pytest

import tasks.recommender
from flows.dpo4rec import begin
from recalign.config import DPO4RecConfig, InteractionsConfig, RosePOConfig
from recalign.errors import UserError
from recalign.schemas import ITEMS, WINDOWS
from recalign.splits.phases import phase_of
from tasks.reasonings import prompt_files, reasonings
from tasks.recommender import recommender, recommender_files
from tasks.report import data_set, with_rules
from tasks.rule_texts import rule_texts
from tasks.tables import read_tables
from tests.tasks.tiny_run import CONFIG, direct

ASKED = 30


def with_others(others_fit):
    splits = CONFIG.splits.model_copy(update={"max_users": ASKED, "others_fit": others_fit})
    return CONFIG.model_copy(update={"splits": splits})


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """A walk up to the base policy's validation, without and with the other users' texts."""
    found = {}
    for others_fit in (False, True):
        walk = direct(tmp_path_factory.mktemp("rules") / "artifacts")
        begin(walk, with_others(others_fit))
        found[others_fit] = walk
    return found


def test_all_users_are_fitted_on_and_only_those_asked_about_are_judged(walks):
    alone, both = (walks[kind].artifact("recommender, base").manifest for kind in (False, True))
    prompted = WINDOWS.read(walks[True].artifact("splits"))["prompted"]
    assert prompted.sum() == ASKED < len(prompted)
    texts = {w: walks[w].artifact("reasonings for fit, base").manifest.rows for w in walks}
    assert texts[True] == texts[False]  # the LLM writes no more
    left_out = both.dropped.get("user without a usable reasoning", 0)
    assert both.rows == CONFIG.splits.fit * (len(prompted) - left_out) > alone.rows
    assert both.figures["users"] == alone.figures["users"] == round(0.2 * ASKED)
    assert list(both.files) != list(alone.files)  # the template is part of the identity


def test_the_oracle_does_not_see_what_the_recommender_is_fitted_on(walks):
    rows = {kind: walks[kind].artifact("oracle").manifest.rows for kind in walks}
    assert rows[False] - rows[True] == (60 - ASKED) * CONFIG.splits.fit


def test_a_text_ends_with_the_last_item_before_the_fit_window(walks, monkeypatch):
    asked = []

    def noted(template, items, histories):
        asked.extend(histories)
        return rule_texts(template, items, histories)

    monkeypatch.setattr(tasks.recommender, "rule_texts", noted)
    walk = walks[True]
    reader = CONFIG.recommender.model_copy(update={"seed": 9})  # not made yet
    files = recommender_files(reader, with_others(True).splits)
    made_from = {name: walk.done[name] for name in ("interactions", "splits", "oracle")}
    made_from["reasonings"] = walk.done["reasonings for fit, base"]
    walk(recommender, reader, made_from, files=files, label="again")
    tables = read_tables(walk.artifact("interactions"), walk.artifact("splits"))
    others = phase_of(tables.windows, "fit", prompted=False)
    assert len(asked) == len(others.users) == 60 - ASKED
    for history, user, start in zip(asked, others.users, others.starts, strict=True):
        first = start - CONFIG.reasonings.history_items
        assert history.tolist() == tables.sequences.slice(user, first, start).tolist()


def test_texts_by_rule_tell_of_the_history_alone(walks):
    walk = walks[True]
    tables = read_tables(walk.artifact("interactions"), walk.artifact("splits"))
    items = ITEMS.read(walk.artifact("interactions"))
    histories = [tables.sequences.slice(user, 0, 4) for user in range(3)]
    texts = rule_texts("likes", items, histories)
    titles = dict(items.select("item_index", "title").iter_rows())
    for text, history in zip(texts, histories, strict=True):
        assert text.startswith("Likes ")
        assert text.endswith(f"{titles[int(history[-1])]}.")
    bare = items.with_columns(attributes=pl.lit([], dtype=ITEMS["attributes"]))
    assert rule_texts("likes", bare, histories)[0].startswith("Lately ")


def test_what_a_user_took_next_may_not_be_told_and_refusals_are_not_learned_from(walks, tmp_path):
    reader = CONFIG.recommender.model_copy(update={"others_text": "likes_next"})
    with pytest.raises(UserError, match="likes_next uses `next`"):
        recommender_files(reader, with_others(True).splits)
    text = tmp_path / "refuses.txt"
    text.write_text("I cannot describe this user, sorry to say.")
    reader = CONFIG.recommender.model_copy(update={"others_text": str(text)})
    walk, files = walks[True], recommender_files(reader, with_others(True).splits)
    made_from = {name: walk.done[name] for name in ("interactions", "splits", "oracle")}
    made_from["reasonings"] = walk.done["reasonings for fit, base"]
    walk(recommender, reader, made_from, files=files, label="refused")
    dropped = walk.artifact("refused").manifest.dropped
    assert dropped["user without a usable reasoning"] >= 60 - ASKED


def test_texts_by_rule_may_be_as_short_as_those_of_the_llm(walks, tmp_path):
    text = tmp_path / "one_word.txt"
    text.write_text("{{ history[-1].title | replace(' ', '') }}")
    reader = CONFIG.recommender.model_copy(update={"others_text": str(text)})
    walk, files = walks[True], recommender_files(reader, with_others(True).splits)
    world = {name: walk.done[name] for name in ("interactions", "splits")}
    dropped = {}
    for least in (3, 1):
        asked = CONFIG.reasonings.model_copy(update={"min_words": least})
        written = walk(
            reasonings, asked.for_phase("fit"), world | {"policy": walk.done["policy"]},
            files=prompt_files(asked), label=f"texts of {least}",
        )  # fmt: skip
        made_from = world | {"oracle": walk.done["oracle"], "reasonings": written}
        walk(recommender, reader, made_from, files=files, label=f"read from {least}")
        left_out = walk.artifact(f"read from {least}").manifest.dropped
        dropped[least] = left_out.get("user without a usable reasoning", 0)
    assert dropped[3] - dropped[1] >= 60 - ASKED


def test_the_report_tells_who_was_described_by_rule(walks):
    for others_fit, n_told in ((True, 1), (False, 0)):
        walk = walks[others_fit]
        data, windows, llm = (walk.artifact(name) for name in ("interactions", "splits", "policy"))
        told = with_rules(data_set(data, windows, read_tables(data, windows)), llm).remarks
        assert [f"about {60 - ASKED} users" in one for one in told] == [True] * n_told


def test_the_report_calls_own_files_by_their_name(walks):
    data, windows = (walks[True].artifact(name) for name in ("interactions", "splits"))
    settings = {"config": InteractionsConfig(source="files").identity()}
    own = data.manifest.model_copy(update=settings | {"files": {"raw/z.csv": "0" * 64}})
    tables = read_tables(data, windows)
    for manifest, name in ((data.manifest, "synthetic"), (own, "z.csv")):
        assert data_set(replace(data, manifest=manifest), windows, tables).name == name


def test_rosepo_refuses_it():
    with pytest.raises(ValueError, match="RosePO reads no texts"):
        RosePOConfig.model_validate({"splits": {"max_users": 9, "others_fit": True}})
    assert DPO4RecConfig.model_validate({"splits": {"max_users": 9, "others_fit": True}})
