"""A guard that refuses a later round ends the rounds: the best of those that are done is judged."""

from datetime import UTC, datetime
from functools import partial

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli.runs import needs_no_server
from flows.dpo4rec import stages
from flows.methods import METHODS
from flows.rounds import new_rounds, walk_to
from flows.session import plan
from flows.sweep import SweepRun, conduct_sweep
from recalign.artifacts.series import Generation, Series
from recalign.config import DPO4RecConfig, Runtime
from recalign.config.sweep import Setting, SweepCell
from recalign.errors import FailedRoundError
from recalign.report import PAGE
from recalign.report.series_history import standing
from recalign.schemas import RESULTS
from recalign.sweep_tables import CELLS
from tasks.engine.run import Run
from tests.tasks.tiny_run import CONFIG, Direct, direct


def with_changes(config: DPO4RecConfig, **parts) -> DPO4RecConfig:
    changed = {name: getattr(config, name).model_copy(update=new) for name, new in parts.items()}
    return config.model_copy(update=changed)


WORLD = CONFIG.interactions.synthetic.model_copy(update={"n_users": 200})
GUARDED = with_changes(
    CONFIG,
    interactions={"synthetic": WORLD},
    recommender={"guard": True, "epochs": 8, "held_out": 0.5, "seed": 2},
    alignment={"learning_rate": 0.05, "allow_worse": True},
    rounds={"n": 3, "patience": 3},
)
"""The base policy's texts tell something; those of a policy that such steps ruin do not."""
REFUSED = "the recommender fitted on the texts of round 1 does not tell users' own from those of"


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A finished run whose second round was refused."""
    walk = direct(tmp_path_factory.mktemp("refused") / "artifacts")
    stages(walk, GUARDED)
    signals = [walk.artifact(f"recommender, {name}").manifest.figures["signal"]
               for name in ("base", "round 1")]  # fmt: skip
    assert signals == [True, False]
    return walk


def test_the_finished_round_is_judged_and_the_run_and_its_report_say_why_there_is_no_other(ended):
    assert ended.note.startswith(f"1 of 3 rounds: {REFUSED}")
    assert " held-out users), so rewards of round 2 would be noise" in ended.note
    assert "rewards, round 2" not in ended.done
    told = ended.artifact("report").manifest.inputs
    assert told["refused"].fingerprint == ended.done["recommender, round 1"].fingerprint
    assert told["aligned"] == ended.done["reasonings for test, round 1"]
    assert "aligned" in RESULTS.read(ended.artifact("evaluation"))["policy"].to_list()
    page = ended.artifact("report").path(PAGE).read_text()
    assert "There is no further round: the recommender fitted on the texts of round 1" in page


def test_a_plan_knows_that_the_run_is_finished(ended):
    def planned(config):
        steps = plan(Run(Runtime(root=str(ended.store.root))), partial(stages, config=config))
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            return needs_no_server(steps), {s.label for s in steps if s.action != "reuse"}

    assert planned(GUARDED) == (True, set())
    done, to_do = planned(with_changes(GUARDED, recommender={"guard": False}))
    assert not done
    assert {"rewards, round 2", "alignment, round 3"} <= to_do


def test_a_series_ends_there_however_often_it_is_asked_for_another_round(ended):
    walk, started = direct(ended.store.root), datetime.now(UTC)
    first = new_rounds(walk_to(walk, GUARDED, 1), 0, "first", started)
    assert [made.number for made in first] == [0, 1]
    for _ in range(2):
        rounds = walk_to(direct(ended.store.root), GUARDED, 2)
        assert new_rounds(rounds, len(first), "next", started) == []
        assert rounds.ended.startswith(f"has ended after round 1: {REFUSED}")
        assert rounds.judge() == ended.done["report"]
    made = Generation(began=started, reason="the first", rounds=first, stages={},
                      ended=rounds.ended)  # fmt: skip
    said = standing(Series(name="news", generations=[made, made]))
    assert said.startswith(f"series news, generation 2, has ended after round 1: {REFUSED}")
    assert "would be noise; best round 1, validation 0." in said


FAILING = with_changes(
    GUARDED, recommender={"guard": False}, alignment={"learning_rate": 0.5, "allow_worse": True}
)
"""Such steps leave a policy that writes nothing usable: round 2 has nothing to learn from."""
FAILED = "round 2 failed: recommender: all 600 reasonings of the fit window are malformed"


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A finished run whose second round failed."""
    walk = direct(tmp_path_factory.mktemp("failed") / "artifacts")
    stages(walk, FAILING)
    return walk


def test_a_later_round_that_fails_loses_no_finished_one(failed):
    assert failed.note.startswith(f"1 of 3 rounds: {FAILED}")
    told = failed.artifact("report").manifest.inputs
    assert told["aligned"] == failed.done["reasonings for test, round 1"]
    assert {name for name in told if name.endswith("_2")} == set()
    page = failed.artifact("report").path(PAGE).read_text()
    assert f"There is no further round: {FAILED}" in page
    readers = RESULTS.read(failed.artifact("evaluation"))["recommender"].unique().to_list()
    assert "refitted" not in readers  # which would have to read such texts


def test_a_series_ends_at_such_a_round_and_the_first_round_is_never_passed_over(failed):
    rounds = walk_to(direct(failed.store.root), FAILING, 2)
    assert rounds.ended.startswith(f"has ended after round 1: {FAILED}")
    assert rounds.judge() == failed.done["report"]
    nothing = with_changes(FAILING, pairs={"min_margin": 0.99})
    with pytest.raises(FailedRoundError, match="pairs: two users with a pair are needed"):
        walk_to(direct(failed.store.root), nothing, 1)


class DirectSweep(Direct, SweepRun):
    """A sweep that calls every stage's own `compute`."""


def test_a_sweep_shows_the_seed_among_the_others(ended):
    run = DirectSweep(Runtime(root=str(ended.store.root), device="cpu", threads=1))
    cell = SweepCell(Setting("as configured", ()), 0, GUARDED)
    conduct_sweep(METHODS[0], [cell], run, "")
    (row,) = CELLS.read(run.artifact("leaderboard")).iter_rows(named=True)
    assert (row["run"], row["error"]) == (ended.done["report"].name, None)
