"""An LLM that validation says is no better than before alignment is handed out with a word."""

import json
from datetime import UTC, datetime

import pytest

from flows.cli.takehome import export_model
from flows.serving.nightly import refresh
from flows.serving.recommend import hand_over
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import fingerprints
from recalign.artifacts.sealing import MANIFEST
from recalign.artifacts.series import SERIES, Generation, Series, SeriesRound
from recalign.artifacts.store import Store
from recalign.chain import doubt_of_run
from recalign.config import RecommendConfig
from recalign.export.place import What
from recalign.metric_columns import SCORE
from tests.tasks.test_recommending import recommended
from tests.tasks.tiny_run import direct

DOUBT = "{}, 0.3175, does not beat that before alignment, 0.3300: alignment has not made this LLM"


@pytest.mark.parametrize(("before", "n_said"), [(0.33, 1), (0.3, 0)])
def test_what_validation_says_is_no_better_is_handed_out_with_a_word(
    copy, tmp_path, caplog, before, n_said
):
    walk, _ = recommended(copy, k=1)
    now = datetime.now(UTC)
    at = {"run": "r", "started": now, "finished": now}
    rounds = [SeriesRound(number=n, validation=one, **at)
              for n, one in enumerate((before, 0.3175, 0.3))]  # fmt: skip
    told = Generation(began=now, reason="the first", rounds=rounds, stages={})
    SERIES.write(walk.store, Series(name="doubtful", generations=[told]))
    asked = RecommendConfig(series="doubtful", output=str(tmp_path / "recs.csv"))
    hand_over(walk.store, asked, walk.done["serving"])
    said = [one.getMessage() for one in caplog.records if one.name == "flows.serving.recommend"]
    assert len(said) == n_said
    assert all(line.startswith(f"validation of {DOUBT.format('round 1')}") for line in said)


def test_a_run_is_doubted_by_its_validation_before_alignment_whatever_the_method(tmp_path):
    store = Store(tmp_path)

    def made(stage, config, figures, **inputs):
        draft = store.draft(Identity(stage, 1, config, fingerprints(inputs), {}), inputs)
        draft.tell(figures)
        return store.commit(draft).manifest

    def report(*scores):
        rounds = {f"validation_{n}": made("evaluation", {"n": n, "of": scores}, {SCORE: one})
                  for n, one in enumerate(scores)}  # fmt: skip
        inputs = {name: one.reference for name, one in rounds.items()}
        aligned = made("reasonings", {}, {}).reference
        return made("report", {}, {}, aligned=aligned, **inputs)

    def comparison(**scores):
        rows = [{"label": name, "kind": "sft" if name == "SFT" else "aligned"} for name in scores]
        return made("comparison", {"rows": rows}, {"validation": scores})

    assert DOUBT.format("round 1") in doubt_of_run(store, report(0.33, 0.3175, 0.3))
    assert DOUBT.format("hard") in doubt_of_run(store, comparison(SFT=0.33, easy=0.3, hard=0.3175))
    assert not doubt_of_run(store, report(0.33, 0.3175, 0.34))
    assert not doubt_of_run(store, comparison(SFT=0.33, easy=0.3, hard=0.34))
    assert not doubt_of_run(store, comparison(hard=0.34))


@pytest.fixture
def doubted(finished, copy):
    """A root whose base policy had a validation that no round beats."""
    base = finished.done["validation, base"]
    told = copy / base.stage / base.fingerprint / MANIFEST
    manifest = json.loads(told.read_text())
    manifest["figures"][SCORE] = 0.99
    told.write_text(json.dumps(manifest))
    return copy


def test_every_refresh_says_so(doubted, tmp_path, caplog):
    refresh(direct(doubted), "home", RecommendConfig(k=1, output=str(tmp_path / "recs.csv")))
    said = [one.getMessage() for one in caplog.records if one.name == "flows.serving.recommend"]
    assert len(said) == 1
    assert said[0].startswith("validation of round 1, 0.")


def test_an_export_says_so_of_an_llm_alone(doubted, tmp_path, caplog):
    exports: list[tuple[What, int]] = [("oracle", 0), ("policy", 1)]
    for what, n_said in exports:
        export_model(to=tmp_path / what, what=what, root=str(doubted))
        said = [one.getMessage() for one in caplog.records if one.name == "flows.cli.takehome"]
        assert len(said) == n_said
    assert said[0].startswith("validation of round 1, 0.")
    assert "does not beat that before alignment, 0.9900" in said[0]
