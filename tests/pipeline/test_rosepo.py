"""RosePO end to end: what it shares with DPO4Rec, what a change recomputes, and how it resumes."""

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

from flows.serving.recommend import chosen, stages
from recalign.artifacts.roots import open_root
from recalign.chain import TitleChain, finished_run
from recalign.config import RecommendConfig
from recalign.exports import export_run
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle
from recalign.schemas import INTERACTIONS, ITEMS, SERVING, USERS
from recalign.sequences import Sequences
from tests.pipeline.roots import digest_of, kill_at_work, manifests
from tests.tasks.tiny_run import direct
from tests.test_docs import FENCED

RUN = ("run", "rosepo", "--preset", "tiny")
ROSEPO = {"sft", "rejections", "smoothing", "reference", "alignment", "recommendations",
          "comparison"}  # fmt: skip


def stages_of(found):
    return {stage for stage, _ in found}


@pytest.fixture(scope="module")
def both(recalign, finished, tmp_path_factory):
    """The root of a DPO4Rec run on which RosePO has run as well."""
    root = shutil.copytree(finished, tmp_path_factory.mktemp("both") / "artifacts")
    done = recalign(*RUN, "--root", str(root))
    assert "comparison/" in done.stdout
    return root


@pytest.fixture
def copied(both, tmp_path):
    return shutil.copytree(both, tmp_path / "artifacts")


def planned(recalign, root, method, *options):
    """Labels of the steps that would be computed."""
    said = recalign("plan", method, "--preset", "tiny", "--root", str(root), *options).stdout
    lines = said.splitlines()[1:-1]
    assert any(" reused" in line for line in lines)
    return [line for line in lines if " computed" in line]


def test_data_and_oracle_are_those_of_dpo4rec(finished, both):
    before, after = manifests(finished), manifests(both)
    assert before.items() <= after.items()
    assert stages_of(set(after) - set(before)) == ROSEPO


def test_a_second_run_computes_nothing(recalign, both):
    assert not planned(recalign, both, "rosepo")


def test_a_sweep_over_strategies_is_a_grid_whose_cells_share_what_they_can(recalign, both):
    asked = ("--over", "rejections.strategy=self_hard,random", "--plan")
    said = recalign("sweep", "rosepo", "--preset", "tiny", "--root", str(both), *asked).stdout
    rows = {" ".join(line.split()[:-3]): line.split()[-3:] for line in said.splitlines()[1:-1]}
    # The tables that both need, and the first cell, are those of the single run.
    assert rows["several cells"][2] == "0"
    assert rows["rejections.strategy=self_hard, seed 0"][2] == "0"
    # Random items with eps, constant, permuted and true: smoothing, alignment and two judgements of
    # each; both controls of random items (of the fresh ones also the pairs); the comparison.
    new = rows["rejections.strategy=random, seed 0"]
    assert new == ["26", "0", "26"]
    assert said.splitlines()[-1].endswith(f"{26 + 1} to do")


def test_another_beta_recomputes_alignments_and_their_rows_alone(recalign, both):
    lines = planned(recalign, both, "rosepo", "--set", "alignment.beta=0.3")
    assert {line.split(",")[0].split(" ")[0] for line in lines} == {
        "alignment", "recommendations", "comparison",
    }  # fmt: skip
    assert any("config.beta: 0.5 -> 0.3" in " ".join(line.split()) for line in lines)
    assert not any("SFT " in line.split("  ")[0] and "continued" not in line for line in lines)


def test_every_row_is_there_for_the_same_users_and_the_page_is_whole(both):
    (folder,) = (both / "comparison").glob("[!.]*")
    values = pl.read_parquet(folder / "per_user.parquet")
    rows = values.group_by("row", maintain_order=True).agg(pl.col("user_index").unique().sort())
    assert rows["row"].to_list() == [
        "Popularity", "SASRec", "SFT", "SFT continued, self_hard items",
        "SFT continued, self_hard, fresh items", "random, no eps", "self_hard, no eps",
        "self_hard, eps", "self_hard, constant eps", "self_hard, permuted eps",
        "self_hard, true eps",
    ]  # fmt: skip
    assert rows["user_index"].n_unique() == 1
    page = (folder / "report.html").read_text()
    assert "Does a personal eps beat none?" in page
    assert "<svg" in page


def test_fewer_controls_compute_the_comparison_alone(recalign, copied):
    asked = ("--set", 'recommendations.controls=["oracle", "none"]')
    assert len(planned(recalign, copied, "rosepo", *asked)) == 1
    before = manifests(copied)
    recalign(*RUN, "--root", str(copied), *asked)
    (new,) = set(manifests(copied)) - set(before)
    values = pl.read_parquet(copied / "/".join(new) / "per_user.parquet")
    assert values["row"].unique(maintain_order=True).to_list() == [
        "SASRec", "SFT", "self_hard, no eps", "self_hard, eps"
    ]  # fmt: skip
    page = (copied / "/".join(new) / "report.html").read_text()
    assert "Does a personal eps beat none?" in page
    assert "constant eps" not in page


def test_rows_judged_on_test_alone_give_the_same_table_and_choose_nothing(recalign, copied):
    asked = ("--set", "recommendations.validated=false")
    (before,) = copied.glob("comparison/[!.]*")
    recalign("sweep", *RUN[1:], "--seeds", "1", "--root", str(copied), *asked)
    (new,) = set(copied.glob("comparison/[!.]*")) - {before}
    inputs = json.loads((new / "manifest.json").read_text())["inputs"]
    assert not [name for name in inputs if name.startswith("valid_")]
    assert (new / "results.parquet").read_bytes() == (before / "results.parquet").read_bytes()
    assert "Chosen by validation" in (before / "report.html").read_text()
    assert "Chosen by validation" not in (new / "report.html").read_text()
    (cells,) = copied.glob("leaderboard/[!.]*/cells.parquet")
    assert pl.read_parquet(cells)["validation"].to_list() == [None]
    told = recalign("recommend", "--latest", "--root", str(copied), check=False)
    assert told.returncode
    assert f"comparison/{new.name[:10]} judged its rows on test alone" in told.stderr
    assert "recommendations.validated = true" in told.stderr


def test_controls_that_no_claim_needs_are_refused_before_any_work(recalign, both):
    asked = ("--set", 'recommendations.controls=["popularity"]')
    told = recalign("plan", *RUN[1:], "--root", str(both), *asked, check=False)
    assert told.returncode
    assert "recommendations.controls: nothing there is a control of 'self_hard, eps'" in told.stderr


def test_rows_that_claim_an_equal_budget_have_it(both):
    """The same pairs and steps as the manifests of their alignments have them, and the table."""
    (folder,) = (both / "comparison").glob("[!.]*")
    made = json.loads((folder / "manifest.json").read_text())
    table = {line["row"]: line for line in pl.read_parquet(folder / "budgets.parquet").to_dicts()}
    spent, chosen = {}, {}
    for number, row in enumerate(made["config"]["rows"]):
        judgement = manifest_of(both, made["inputs"][f"row_{number}"])
        if row["strategy"] != "self_hard":
            continue
        trained = manifest_of(both, judgement["inputs"]["policy"])
        told = {name: trained["figures"][name] for name in ("pairs", "planned_steps")}
        spent[row["label"]] = told | {"held_out": trained["figures"]["held_out_pairs"]}
        assert table[row["label"]]["pairs"] == told["pairs"] - trained["figures"]["held_out_pairs"]
        assert table[row["label"]]["planned_steps"] == told["planned_steps"]
        pairs = both / "smoothing" / trained["inputs"]["completions"]["fingerprint"]
        asked = pl.read_parquet(pairs / "completions.parquet")
        chosen[row["label"]] = set(asked.select("user_index", "position").iter_rows())
        assert row["kind"] == "aligned" or trained["config"]["loss"] == "nll"
    assert len(spent) == 7
    assert len({json.dumps(one) for one in spent.values()}) == 1
    fresh = chosen.pop("SFT continued, self_hard, fresh items")
    assert all(one == chosen["self_hard, eps"] for one in chosen.values())
    assert len(fresh) == len(chosen["self_hard, eps"])
    assert not fresh & chosen["self_hard, eps"]
    said = made["figures"]["unequal_budgets"]  # self-hard drops the pairs that the LLM gets right
    assert {one.split(" had ")[0] for one in said} == {"random, no eps"}


def manifest_of(root, reference):
    folder = root / reference["stage"] / reference["fingerprint"]
    return json.loads((folder / "manifest.json").read_text())


def test_the_page_calls_every_artifact_what_the_plan_calls_its_step(recalign, both):
    (page,) = both.glob("comparison/[!.]*/report.html")
    line = r'<tr id="artifact-\w+"><td class="l wrap">([^<]*)<small'
    shown = re.findall(line, page.read_text())
    assert len(set(shown)) == len(shown)
    said = recalign("plan", "rosepo", "--preset", "tiny", "--root", str(both)).stdout
    lines = said.splitlines()[1:-1]
    steps = {line.split("  ")[0].strip() for line in lines if " reused" in line}
    assert set(shown) == steps - {"comparison"}


def test_permuted_doubts_are_the_same_numbers_in_another_order(both):
    found = {}
    for path in (both / "smoothing").glob("[!.]*/manifest.json"):
        config = json.loads(path.read_text())["config"]
        table = pl.read_parquet(path.parent / "completions.parquet")
        found[config["estimator"]] = table["smoothing"].list.first().to_list()
    assert found["pairwise"] != found["permuted"]
    assert sorted(found["pairwise"]) == pytest.approx(sorted(found["permuted"]))


def test_the_newest_report_is_found_and_garbage_collection_keeps_one_of_each_method(
    recalign, copied
):
    newest = recalign("report", "--root", str(copied)).stdout.strip()
    (page,) = copied.glob("comparison/[!.]*/report.html")
    assert newest == str(page)
    before = manifests(copied)
    recalign("gc", "--keep", "1", "--root", str(copied))
    assert manifests(copied) == before


def test_the_aligned_llm_recommends_alone_and_among_sasrecs_best(recalign, copied, tmp_path):
    """Over the whole catalogue by the command; SASRec's best, ranked anew, by the same flow."""
    output = tmp_path / "recs.parquet"
    told = recalign("recommend", "--latest", "--root", str(copied), "--output", str(output))
    assert "240 of 240 users have recommendations" in told.stdout
    copy = tmp_path / "copy.parquet"
    again = recalign.alone("recommend", "--latest", "--root", str(copied), "--output", str(copy))
    assert again.stdout == f"240 of 240 users have recommendations in {copy}\n"
    assert "temporary server" not in again.stderr
    assert copy.read_bytes() == output.read_bytes()
    run, asked = direct(copied), RecommendConfig(candidates=12, k=12)
    chain = chosen(run.store, asked)
    assert isinstance(chain, TitleChain)
    assert chain.policy.fingerprint == best_aligned_row(copied)
    alone, among = pl.read_parquet(output), SERVING.read(run.store.open(stages(run, asked, chain)))
    recalled = best_of_sasrec(run.store, chain, 12)
    assert dict(among.group_by("user_id").agg("item_id").iter_rows()).keys() == recalled.keys()
    for user, listed in among.group_by("user_id"):
        assert set(listed["item_id"]) == recalled[user[0]]
        assert listed["score"].is_sorted(descending=True)
    both = alone.join(among, on=["user_id", "item_id"])
    assert 240 < both.height < alone.height == 240 * 10
    assert np.allclose(both["score"], both["score_right"], atol=1e-4)  # both are log-probabilities


def test_the_exported_llm_names_a_title_by_the_code_on_its_card(
    both, tmp_path, monkeypatch, capsys
):
    store = open_root(str(both))
    report, folder = finished_run(store, method="rosepo"), tmp_path / "llm"
    told = export_run(store, str(both), report, folder, "policy", merge=True)
    assert "same greedy texts as recalign for 3 of 3" in told
    card = (folder / "README.md").read_text()
    [code] = [code for kind, code in FENCED.findall(card) if kind == "python"]
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(code, {})
    assert "RosePO" in card
    (items,) = both.glob("interactions/[!.]*/items.parquet")
    assert capsys.readouterr().out.strip() in pl.read_parquet(items)["title"].to_list()


def best_aligned_row(root):
    """The policy of the aligned row that is best on validation, by the manifests alone."""
    [report] = root.glob("comparison/[!.]*/manifest.json")
    made = json.loads(report.read_text())
    known, rows = made["figures"]["validation"], made["config"]["rows"]
    aligned = {known[row["label"]]: n for n, row in enumerate(rows) if row["kind"] == "aligned"}
    best = manifest_of(root, made["inputs"][f"row_{aligned[max(aligned)]}"])
    return best["inputs"]["policy"]["fingerprint"]


def best_of_sasrec(store, chain, n):
    """The n items of every user that SASRec scores highest and the user has not taken."""
    world = store.open(chain.interactions)
    taken, items = INTERACTIONS.read(world), ITEMS.read(world)
    sequences = Sequences.of(taken, items.height)
    model, _ = load_oracle(store.open(chain.oracle).folder)
    users = USERS.read(world)["user_id"].to_list()
    states = states_of(model, sequences, np.arange(len(users)), sequences.lengths)
    scores = (states @ model.item_matrix().T + model.bias).detach().numpy()
    scores[:, 0] = -np.inf
    scores[taken["user_index"].to_numpy(), taken["item_index"].to_numpy()] = -np.inf
    ids = items.sort("item_index")["item_id"].to_list()
    best = np.argsort(-scores, 1)[:, :n]
    return {user: {ids[i - 1] for i in row} for user, row in zip(users, best.tolist(), strict=True)}


@pytest.mark.parametrize(
    ("stage", "label"),
    [
        ("sft", "sft"),
        ("alignment", "alignment, self_hard, eps"),
        ("recommendations", "recommendations for valid, SFT"),
    ],
)
def test_sigkill_loses_no_finished_work(recalign, copied, both, stage, label):
    found = [json.loads(path.read_text()) for path in both.glob(f"{stage}/[!.]*/manifest.json")]
    doubted = {
        path.parent.name
        for path in both.glob("smoothing/[!.]*/manifest.json")
        if json.loads(path.read_text())["config"]["estimator"] == "pairwise"
    }
    (fingerprint,) = [
        one["fingerprint"] for one in found
        if stage == "sft"
        or (stage == "alignment" and one["inputs"]["completions"]["fingerprint"] in doubted)
        or (stage == "recommendations" and one["config"]["phase"] == "valid"
        and one["inputs"].get("policy", {}).get("stage") == "sft")
    ]  # fmt: skip
    shutil.rmtree(copied / stage / fingerprint)
    command = (*RUN, "--root", str(copied), "--stop-after", label,
               "--set", "runtime.generation_rows=32")  # fmt: skip
    kill_at_work(recalign, copied, stage, fingerprint, command)
    recalign(*command)
    assert digest_of(copied, stage, fingerprint) == digest_of(both, stage, fingerprint)
    assert not list(copied.glob("*/.draft-*"))
