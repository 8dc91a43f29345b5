"""Three simulated nights: what each costs, what drift tells, and what a failure leaves in place."""

import json
import shutil
import threading
import time
from math import log2
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from flows.cli import takehome
from flows.cli.app import app
from flows.cli.upkeep import collect_garbage
from flows.serving.nightly import recommend_nightly, refresh
from recalign.artifacts.artifact import Artifact, Draft
from recalign.artifacts.identity import Identity
from recalign.artifacts.kept_rows import KeptRows
from recalign.artifacts.refreshes import REFRESHES
from recalign.artifacts.series import SERIES
from recalign.config import DriftConfig, InteractionsConfig, RecommendConfig, Runtime
from recalign.errors import UserError
from recalign.evaluation.taken_since import foreseen
from recalign.report.refresh_history import drift_curve, refresh_rows
from recalign.schemas import INTERACTIONS, ITEMS, SERVING, USERS
from recalign.serving.output import write_output
from tasks.drift import drift
from tasks.interactions import interactions
from tasks.oracle import oracle
from tasks.splits import splits
from tests.report.sample_pages import manifest
from tests.tasks.tiny_run import CONFIG, direct, made_anew

N_USERS = 60  # of the smallest run


class Nights:
    """A root, a file of newer interactions that grows by day, and the table that is handed out."""

    def __init__(self, folder, root):
        self.root, self.newer, self.output = root, folder / "newer.csv", folder / "recs.parquet"
        world = next(root.glob("interactions/[!.]*"))
        self.users = pl.read_parquet(world / USERS.file)["user_id"].to_list()
        self.items = pl.read_parquet(world / ITEMS.file)["item_id"].to_list()
        self.now = max(pl.read_parquet(world / INTERACTIONS.file)["timestamp"].to_list())
        self.newer.write_text("user_id,item_id,timestamp\n")

    def take(self, *events):
        """What users take today."""
        with self.newer.open("a") as file:
            for user, item in events:
                self.now += 1
                file.write(f"{user},{item},{self.now}\n")

    def refresh(self, named="", **sizes):
        newer = str(self.newer) if self.newer.read_text().count("\n") > 1 else ""
        config = RecommendConfig(run=named, interactions=newer, output=str(self.output), k=5)
        run = direct(self.root)
        run.runtime = run.runtime.model_copy(update=sizes)
        return refresh(run, "home", config)

    @property
    def table(self):
        return pl.read_parquet(self.output)

    @property
    def history(self):
        return REFRESHES.read(direct(self.root).store, "home")

    def listed(self, user, rank):
        return self.table.filter(user_id=user, rank=rank)["item_id"].item()

    def unlisted(self, user):
        """An item that is neither recommended to the user nor taken."""
        (made,) = self.root.glob("interactions/[!.]*")
        users, items = (pl.read_parquet(made / f"{one}.parquet") for one in ("users", "items"))
        number = users.filter(user_id=user)["user_index"].item()
        taken = pl.read_parquet(made / "interactions.parquet").filter(user_index=number)
        left = items.filter(~pl.col("item_index").is_in(taken["item_index"].implode()))
        listed = self.table.filter(user_id=user)["item_id"]
        return left.filter(~pl.col("item_id").is_in(listed.implode()))["item_id"][0]


@pytest.fixture
def nights(finished, tmp_path):
    root = shutil.copytree(finished.store.root, tmp_path / "artifacts")
    return Nights(tmp_path, root)


def test_nothing_is_written_into_a_folder_that_is_no_root(tmp_path):
    with pytest.raises(UserError, match="nothing here is known to be ours to delete"):
        collect_garbage(root=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_name_that_no_history_can_have_is_refused_before_a_server_starts(nights, monkeypatch):
    def started() -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(takehome, "start_server", started)
    asked = ["--root", str(nights.root), "--refresh", "My Home", "--output", str(nights.output)]
    done = CliRunner().invoke(app, ["recommend", *asked])
    assert isinstance(done.exception, UserError)
    assert "My Home" in str(done.exception)


def test_a_night_costs_what_its_active_users_cost_and_tells_how_well_the_last_foresaw(nights):
    first, second, third = nights.users[5], nights.users[11], nights.users[30]
    nights.refresh()
    nights.take((first, nights.listed(first, 1)), (second, nights.listed(second, 2)),
                (third, "strange"), ("new one", nights.items[0]))  # fmt: skip
    nights.refresh()
    nights.take((first, nights.listed(first, 3)))
    told = nights.refresh()
    made = nights.history.refreshes
    assert [one.users for one in made] == [N_USERS, N_USERS + 1, N_USERS + 1]
    assert [one.texts_kept + one.texts_written for one in made] == [one.users for one in made]
    assert [one.texts_written for one in made][1:] == [3, 1]
    assert made[0].texts_written > 50
    assert made[0].drift is None
    assert made[1].drift is not None
    assert made[1].drift.users == 2  # the new one had no list, the strange item no place in any
    assert made[1].drift.ndcg == pytest.approx((1 + 1 / log2(3)) / 2)
    assert (made[1].drift.low, made[1].drift.high) == (None, None)  # two users say too little
    assert refresh_rows(nights.history)[1]["95 %"] == "too few users"
    assert made[2].drift is not None
    assert made[2].drift.ndcg == pytest.approx(1 / log2(4))
    assert "refresh 3 of home: 61 of 61 users, 1 texts written" in told
    assert "NDCG@5 0.5000" in told
    assert [row["texts written"] for row in refresh_rows(nights.history)][1:] == ["3", "1"]
    assert drift_curve(nights.history).startswith("<svg")


@pytest.mark.parametrize("version", ["this", "an earlier one"])
def test_another_data_set_at_the_same_root_leaves_table_and_history_as_they_were(nights, version):
    nights.refresh()
    store, kept = direct(nights.root).store, nights.history
    assert kept.source.startswith("synthetic, n_users 60, n_items 120")
    other = InteractionsConfig(source="ml-1m")
    if version == "this":
        told = kept.model_copy(update={"source": other.place}).model_dump(mode="json")
    else:  # whose files tell of no source, but of the histories, which are looked at
        identity = Identity("interactions", 1, other.identity(), {}, {})
        world = store.commit(store.draft(identity, {})).reference
        last = kept.last.model_copy(update={"histories": world})
        told = kept.model_copy(update={"refreshes": [last]}).model_dump(mode="json")
        del told["source"]
    store.write_note(".refreshes/home.json", json.dumps(told))
    table, history = nights.output.read_bytes(), nights.history
    nights.take((nights.users[5], nights.items[7]))
    with pytest.raises(UserError, match="recommends from ml-1m, but the newest report is of synt"):
        nights.refresh()
    assert nights.output.read_bytes() == table
    assert nights.history == history


@pytest.mark.parametrize("anew", ["serving", "histories"])
def test_a_table_that_is_not_what_was_handed_out_any_more_is_not_judged(nights, anew):
    nights.take((nights.users[3], nights.items[5]))
    nights.refresh()
    made_anew(direct(nights.root).store, getattr(nights.history.last, anew))
    nights.take((nights.users[5], nights.items[7]))
    nights.refresh()
    assert [one.drift for one in nights.history.refreshes] == [None, None]


def test_the_same_night_again_writes_and_computes_nothing(nights):
    nights.refresh()
    before = nights.output.read_bytes()
    nights.refresh()
    first, second = nights.history.refreshes
    assert (second.serving, second.texts_written) == (first.serving, 0)
    assert second.drift is None
    assert nights.output.read_bytes() == before


def test_a_night_that_fails_leaves_table_and_history_as_they_were(nights):
    nights.refresh()
    table, history = nights.output.read_bytes(), nights.history
    nights.take((nights.users[3], nights.unlisted(nights.users[3])))
    for weights in nights.root.glob("policy/[!.]*/model/model.safetensors"):
        weights.rename(weights.with_suffix(".away"))
    with pytest.raises(UserError, match=r"policy/.* is missing or damaged"):
        nights.refresh()
    assert nights.output.read_bytes() == table
    assert nights.history == history
    for weights in nights.root.glob("policy/[!.]*/model/model.away"):
        weights.rename(weights.with_suffix(".safetensors"))
    nights.refresh()
    assert nights.history.refreshes[1].texts_written == 1


def test_texts_that_a_killed_refresh_wrote_count_as_written(nights, monkeypatch):
    kept = KeptRows.add

    def add_until(self, rows):
        kept(self, rows)
        monkeypatch.setattr(KeptRows, "add", kept)
        raise KeyboardInterrupt

    nights.refresh()
    nights.take(*((user, nights.listed(user, 1)) for user in nights.users[:3]))
    monkeypatch.setattr(KeptRows, "add", add_until)
    with pytest.raises(KeyboardInterrupt):
        nights.refresh(shard_users=1)
    nights.refresh()
    assert nights.history.refreshes[1].texts_written == 3


@pytest.mark.usefixtures("prefect_server")
def test_texts_that_a_refresh_had_written_before_its_retry_count_as_written(nights, monkeypatch):
    def fails_once(*given):
        monkeypatch.setattr("flows.serving.nightly.write_output", write_output)
        raise OSError("the disk is full")

    nights.refresh()
    nights.take((nights.users[3], nights.unlisted(nights.users[3])))
    monkeypatch.setattr("flows.serving.nightly.write_output", fails_once)
    config = RecommendConfig(interactions=str(nights.newer), output=str(nights.output), k=5)
    runtime = Runtime(root=str(nights.root), device="cpu", threads=1)
    recommend_nightly.with_options(retries=1)("home", config, runtime, return_state=True)
    _, second = nights.history.refreshes
    assert (second.texts_written, second.texts_kept) == (1, N_USERS - 1)


def test_the_history_tells_of_a_table_even_if_no_page_can_be_shown(nights, monkeypatch):
    def refused(*given, **more):
        raise OSError("the server is away")

    monkeypatch.setattr("flows.serving.nightly.show", refused)
    with pytest.raises(OSError, match="away"):
        nights.refresh()
    assert nights.output.exists()
    assert len(nights.history.refreshes) == 1


def test_garbage_collection_keeps_the_last_night_and_a_run_that_was_interrupted_before_it(nights):
    nights.refresh()
    walk = direct(nights.root)
    world = {"interactions": walk(interactions, CONFIG.interactions)}
    world["splits"] = walk(splits, CONFIG.splits, world)
    interrupted = walk(oracle, CONFIG.oracle.model_copy(update={"seed": 7}), world)
    nights.take((nights.users[2], nights.listed(nights.users[2], 1)))
    nights.refresh()
    collect_garbage(keep=1, dry_run=False, root=str(nights.root))
    first, second = (one.serving for one in nights.history.refreshes)
    left = [walk.store.known(one.stage, one.fingerprint) for one in (first, second, interrupted)]
    assert [one is not None for one in left] == [False, True, True]
    nights.take((nights.users[2], nights.listed(nights.users[2], 1)))
    nights.refresh()
    third = nights.history.refreshes[-1]
    assert third.texts_written == 1
    assert third.drift is not None


def test_garbage_collection_keeps_the_run_that_refreshes_name(nights):
    store = direct(nights.root).store
    (report,) = store.manifests("report")
    nights.refresh(report.reference.name)
    store.commit(store.draft(Identity("report", 1, {"newer": True}, {}, {}), {}))
    collect_garbage(keep=1, dry_run=False, root=str(nights.root))
    nights.take((nights.users[2], nights.listed(nights.users[2], 1)))
    nights.refresh(report.reference.name)
    assert [one.report for one in nights.history.refreshes] == [report.reference] * 2
    earlier = nights.history.model_dump(mode="json")  # a history of versions that kept no report
    del earlier["source"]
    for one in earlier["refreshes"]:
        del one["report"]
    store.write_note(".refreshes/home.json", json.dumps(earlier))
    assert [one.report for one in nights.history.refreshes] == [None] * 2


def test_one_writer_at_a_time(nights):
    store = direct(nights.root).store
    with REFRESHES.lock(store, "home"):
        state = recommend_nightly.fn("home", RecommendConfig(), Runtime(root=str(nights.root)))
    assert state.name == "Skipped"
    assert "being advanced by another run" in state.message
    with pytest.raises(UserError, match="refresh 'No/Name': a name has up to 60"):
        REFRESHES.read(store, "No/Name")


def test_a_refresh_by_a_series_waits_for_the_round_under_way(nights, caplog):
    held, released = threading.Event(), threading.Event()

    def advance():
        with SERIES.lock(direct(nights.root).store, "news"):
            held.set()
            time.sleep(1)
            released.set()

    round_under_way = threading.Thread(target=advance)
    round_under_way.start()
    held.wait()
    config, runtime = RecommendConfig(series="news"), Runtime(root=str(nights.root))
    with pytest.raises(UserError, match="there is no series news, or none of its rounds"):
        recommend_nightly.fn("home", config, runtime)
    assert released.is_set()
    assert caplog.messages == ["waits for the round of series news"]
    round_under_way.join()


def test_a_round_that_falls_due_during_a_refresh_is_not_skipped(nights, monkeypatch, caplog):
    def a_round_meanwhile(run, name, config):
        with SERIES.lock(run.store, config.series).acquire(timeout=0):
            return f"{name} is refreshed"

    monkeypatch.setattr("flows.serving.nightly.refresh", a_round_meanwhile)
    config, runtime = RecommendConfig(series="news"), Runtime(root=str(nights.root))
    state = recommend_nightly.fn("home", config, runtime)
    assert state.message == "home is refreshed"
    assert caplog.messages == []


def test_drift_counts_each_new_item_once_against_the_ideal_list():
    at = {"rank": pl.Int32, "user_id": pl.String, "item_id": pl.String}
    lists = [(1, "a", "x"), (2, "a", "y"), (3, "a", "z"), (1, "b", "x"), (None, "c", None)]
    served = pl.DataFrame(lists, schema=at, orient="row")
    served = served.with_columns(
        pl.lit(None, kind).alias(name) for name, kind in SERVING.items() if name not in at
    )
    columns = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    before = pl.DataFrame([("a", "w", 1), ("b", "v", 1)], schema=columns, orient="row")
    new = [("a", "y", 5), ("a", "y", 6), ("a", "z", 7), ("a", "w", 8), ("a", "q", 9),
           ("c", "x", 5), ("b", "v", 9), ("a", "x", 0)]  # fmt: skip
    now = pl.concat([before, pl.DataFrame(new, schema=columns, orient="row")])
    table = foreseen(served, before, now, 3)  # b took again what it had, c had no list
    # ("a", "x", 0) is older than what was known of a: other filters let it through now.
    values = dict(table.select("measure", "value").iter_rows())
    assert table["user_index"].n_unique() == 1
    ideal = 1 + 1 / log2(3) + 1 / log2(4)
    assert values == {"NDCG": pytest.approx((1 / log2(3) + 1 / log2(4)) / ideal), "HR": 1.0}
    # Where lists hold what was seen, w and v count as well; b's list holds x alone.
    table = foreseen(served, before, now, 3, exclude_seen=False)
    hits = table.filter(measure="HR").sort("user_index")["value"].to_list()
    assert hits == [1.0, 0.0]


@pytest.mark.parametrize(("exclude_seen", "users"), [(True, 0), (False, 1)])
def test_lists_that_hold_what_was_seen_are_judged_on_what_is_taken_again(
    tmp_path, exclude_seen, users
):
    known = manifest("serving", "a" * 32)
    taken = [(0, 1, 0, 10, None), (0, 2, 1, 20, None), (0, 1, 2, 30, None)]
    made = {}
    for name, n_taken in (("served", 0), ("before", 2), ("histories", 3)):
        config = {"exclude_seen": exclude_seen}
        made[name] = Artifact(tmp_path / name, known.model_copy(update={"config": config}))
        made[name].folder.mkdir()
        rows = pl.DataFrame(taken[:n_taken], schema=INTERACTIONS, orient="row")
        rows.write_parquet(made[name].path(INTERACTIONS.file))
        pl.DataFrame({"user_index": [0], "user_id": ["a"]}, schema=USERS).write_parquet(
            made[name].path(USERS.file)
        )
        items = {"item_index": [1, 2], "item_id": ["x", "y"], "title": ["", ""], "text": ["", ""],
                 "attributes": [[], []]}  # fmt: skip
        pl.DataFrame(items, schema=ITEMS).write_parquet(made[name].path(ITEMS.file))
    line = {"user_id": "a", "rank": 2, "item_id": "x"}
    pl.DataFrame([dict.fromkeys(SERVING) | line], schema=SERVING).write_parquet(
        made["served"].path(SERVING.file)
    )
    job: Any = SimpleNamespace(draft=Draft(tmp_path / "draft", known))
    job.draft.folder.mkdir()
    drift.body(job, DriftConfig(), **made)
    assert known.figures["users"] == users
    assert known.figures.get("ndcg") == (pytest.approx(1 / log2(3)) if users else None)
