"""Presets and overrides become typed settings, and mistakes in them become one clear line."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.cli.app import app
from flows.cli.runs import RunOptions
from recalign.config import (
    DPO4RecConfig,
    InteractionsConfig,
    RecommendConfig,
    RosePOConfig,
    Runtime,
)
from recalign.config.presets import (
    PRESETS,
    changes,
    complete,
    idle,
    load_settings,
    own_preset,
    preset_names,
    says_of_itself,
)
from recalign.errors import UserError

BENCHMARKED = Path(__file__).parent.parent.parent / "benchmarks" / "oracle_settings"

PICKING = {"kind": "huggingface", "model": "anywhere", "format": "candidates", "method": "full"}


def dpo4rec(preset="", *overrides):
    return load_settings(DPO4RecConfig, preset, list(overrides))


def test_there_are_presets():
    assert {"embedded", "tiny", "ml-100k", "ml-1m", "amazon-beauty", "paper", "kar"} <= set(
        preset_names(DPO4RecConfig)
    )
    assert [path.name for path in PRESETS.iterdir() if path.is_dir()]


@pytest.mark.parametrize("name", preset_names(DPO4RecConfig))
def test_every_preset_is_valid_and_says_something_of_itself(name):
    assert isinstance(dpo4rec(name), DPO4RecConfig)
    assert (PRESETS / "dpo4rec" / f"{name}.toml").read_text().startswith("# ")


@pytest.mark.parametrize("name", ["ml-1m", "amazon-beauty", "ml-100k"])
def test_the_settings_behind_the_published_accuracy_are_valid(name):
    assert dpo4rec(str(BENCHMARKED / f"{name}.toml")).oracle.epochs >= 30


def test_an_override_beats_the_preset_and_the_preset_beats_the_default():
    assert dpo4rec().oracle.epochs != dpo4rec("tiny").oracle.epochs
    assert dpo4rec("tiny", "oracle.epochs=9").oracle.epochs == 9
    assert dpo4rec("", "interactions.synthetic.noise=0.25").interactions.synthetic.noise == 0.25
    assert dpo4rec("", "evaluation.cutoffs=[3, 7]").evaluation.cutoffs == [3, 7]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alignment.bta=1", "alignment.bta: no such setting; there are lora_rank,"),
        ("alignement.beta=1", "alignement: no such setting; there are interactions,"),
        ("alignment.beta=0", "alignment.beta: Input should be greater than 0"),
        ("alignment.beta=much", "alignment.beta: Input should be a valid number"),
        ("oracle.loss=hinge", "oracle.loss: Input should be 'full',"),
        ("oracle.heads=3", "oracle: heads must divide hidden"),
        ("policy.bootstrap.heads=3", "bootstrap: hidden 128 must be a multiple of 2 x heads, 6"),
        ("alignment", "write stage.field=value"),
        ("splits.fit=0", "splits.fit and splits.reward must be at least 1"),
        ("alignment.loss=rosepo", "alignment.loss = rosepo needs an eps of each pair"),
        ("alignment.loss=rdpo", "use dpo, or cdpo with alignment.constant_eps"),
        ("policy.kind=huggingface", "policy: model must name a hub id or folder"),
        ("policy.warm_up.n_prompts=1", "one prompt is trained on and one held out"),
        ("recommender.others_text=recent", "read only with splits.others_fit"),
        ("evaluation.list_targets=20", "list_targets must be below evaluation.list_length"),
    ],
)
def test_a_mistake_names_the_field_and_what_is_allowed(override, message):
    with pytest.raises(UserError) as refused:
        dpo4rec("", override)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recommendations": {"beam": 3}}, "recommendations.beam = 3 finds fewer items than HR@10"),
        ({"recommendations": {"beam": 12, "top": 20}}, "recommendations.top = 20 count: raise it"),
        ({"splits": {"fit": 0}}, "smoothing.calibrated needs splits.fit above 0"),
        (
            {"splits": {"fit": 0}, "smoothing": {"estimator": "none"}},
            "permuted eps, a control, are calibrated, too",
        ),
        ({"alignment": {"drop_above": 0.05}}, "drop_above = 0.05 .* smoothing.constant = 0.1: rai"),
        (
            {"splits": {"protocol": "temporal", "reward_share": 0}},
            "splits.reward_share must be above 0: pairs come from that window",
        ),
        (
            {"interactions": {"files": {"user_column": "id", "item_column": "id"}}},
            "user_column and item_column are both 'id'",
        ),
    ],
)
def test_settings_of_rosepo_that_would_measure_something_else_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        RosePOConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({"splits": {"fit": 0}, "smoothing": {"estimator": "none"}}, "permuted"),
        ({"alignment": {"drop_above": 0.05}}, "constant"),
    ],
)
def test_what_a_control_needs_is_not_asked_where_the_control_is_left_out(settings, left_out):
    every = RosePOConfig().recommendations.controls
    fewer = {"controls": [one for one in every if one != left_out]}
    RosePOConfig.model_validate(settings | {"recommendations": fewer})


@pytest.mark.parametrize("share", ["fit_share", "reward_share"])
def test_dpo4rec_needs_a_fit_and_a_reward_window_in_time_too(share):
    with pytest.raises(ValidationError, match="fit_share and reward_share must be above 0"):
        DPO4RecConfig.model_validate({"splits": {"protocol": "temporal", share: 0}})


@pytest.mark.parametrize(
    "given", [{"root": "s3://key:secret@bucket/x"}, {"cluster": "tcp://ann:secret@host:8786"}]
)
def test_a_url_with_a_password_is_refused_and_not_repeated(given):
    with pytest.raises(UserError, match="must hold no password") as refused:
        complete(Runtime(), given)
    assert "secret" not in str(refused.value)


def test_a_root_with_a_password_is_refused_whichever_way_it_comes(monkeypatch):
    root = "s3://key:secret@bucket/x"

    def told(run):
        with pytest.raises(UserError, match="must hold no password") as refused:
            run()
        assert "secret" not in str(refused.value)

    told(RunOptions(root=root).runtime)
    for command in (["ls"], ["run", "dpo4rec"], ["up"]):
        told(lambda command=command: app([*command, "--root", root], standalone_mode=False))
    monkeypatch.setenv("RECALIGN_ROOT", root)
    told(Runtime)
    told(lambda: app(["ls"], standalone_mode=False))


@pytest.mark.parametrize(
    "unread", [{"smoothing": {"calibrated": False}}, {"alignment": {"loss": "dpo"}}]
)
def test_an_oracle_without_a_fit_window_may_go_uncalibrated_or_unread(unread):
    settings = {"splits": {"fit": 0}} | unread
    assert RosePOConfig.model_validate(settings).splits.fit == 0


@pytest.mark.parametrize("model", [DPO4RecConfig, RosePOConfig, RecommendConfig, Runtime])
def test_no_form_takes_an_integer_that_a_browser_or_prefects_server_cannot_hold(model):
    schema = model.model_json_schema()
    sections = [schema, *schema.get("$defs", {}).values()]
    fields = [(name, told) for one in sections for name, told in one["properties"].items()]
    numbers = [(name, told.get("items", told)) for name, told in fields]
    integers = {name: told for name, told in numbers if told.get("type") == "integer"}
    assert {name for name, told in integers.items() if "maximum" not in told} == set()
    assert max(told["maximum"] for told in integers.values()) < 2**53


def test_a_preset_with_a_byte_order_mark_is_read(tmp_path):
    """As Windows' editors save it."""
    file = tmp_path / "marked.toml"
    file.write_text("# mine\n[alignment]\nbeta = 0.2\n", encoding="utf-8-sig")
    assert dpo4rec(str(file)).alignment.beta == 0.2
    assert says_of_itself(file) == "mine"


def test_a_preset_that_is_not_there_or_not_toml_is_named(tmp_path):
    with pytest.raises(UserError, match=r"'nope' is neither a file nor one of: amazon-beauty,"):
        dpo4rec("nope")
    bad = tmp_path / "bad.toml"
    for text in ("[oracle\n", "a = " + "9" * 5000, "a = " + "[" * 3000):
        bad.write_text(text)
        with pytest.raises(UserError, match=r"bad\.toml"):
            dpo4rec(str(bad))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# My shop.\n[oracle]\n", "My shop."),
        ("[oracle]\n# ours\n", ""),
        ("a.b = 1\n", ""),
        ("", ""),
    ],
)
def test_a_preset_says_of_itself_what_its_first_line_comments(tmp_path, text, said):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    assert says_of_itself(file) == said


def test_a_phase_has_its_own_count_of_samples_and_shares_the_rest():
    config = dpo4rec("", "reasonings.n_eval_samples=7", "reasonings.temperature=0.5").reasonings
    other = dpo4rec("", "reasonings.n_eval_samples=8", "reasonings.temperature=0.5").reasonings
    assert config.for_phase("test").n_samples == 7
    assert config.for_phase("fit") == other.for_phase("fit")
    assert config.for_phase("fit").temperature == 0.5


def test_every_value_given_wins_also_one_that_is_its_class_default():
    usual, tiny = DPO4RecConfig(), dpo4rec("tiny")
    assert tiny.alignment.epochs != usual.alignment.epochs
    config = complete(tiny, {"alignment": {"epochs": usual.alignment.epochs}})
    assert config.alignment.epochs == usual.alignment.epochs
    assert changes(tiny, config) == {"alignment": {"epochs": usual.alignment.epochs}}
    form = usual.model_dump(mode="json")  # a form submits every field
    assert complete(tiny, form) == usual


def test_what_a_request_leaves_out_comes_from_the_start_and_later_values_beat_earlier():
    tiny = dpo4rec("tiny")
    assert complete(tiny) == tiny
    config = complete(tiny, {"oracle": {"epochs": 8}}, {"oracle": {"epochs": 9}})
    assert (config.oracle.epochs, config.oracle.hidden) == (9, tiny.oracle.hidden)
    assert complete(tiny, {"evaluation": {"cutoffs": [3]}}).evaluation.cutoffs == [3]


LLM = ("kind=huggingface", "model=some/llm")
COARSE = r"method = full needs weights in float32 \(dtype = float32, quantisation = none\)"
RANK = "alignment goes on with the adapter of sft: set alignment.lora_rank = 32"


@pytest.mark.parametrize(
    ("method", "given", "why"),
    [
        (DPO4RecConfig, ["policy.dtype=auto", "alignment.method=full"], f"alignment.{COARSE}"),
        (
            DPO4RecConfig,
            ["policy.quantisation=nf4", "alignment.method=full"],
            f"alignment.{COARSE}",
        ),
        (
            DPO4RecConfig,
            ["policy.dtype=bfloat16", "policy.warm_up.n_prompts=9", "policy.warm_up.method=full"],
            f"policy.warm_up.{COARSE}",
        ),
        (RosePOConfig, ["sft.dtype=bfloat16"], f"sft.{COARSE}"),
        (RosePOConfig, ["sft.method=lora", "alignment.method=full"], "use lora for both, or full"),
        (RosePOConfig, ["sft.method=lora", "sft.lora_rank=32", "alignment.method=lora"], RANK),
    ],
)
def test_a_training_that_can_never_work_is_refused_before_anything_is_computed(method, given, why):
    stage = "policy" if method is DPO4RecConfig else "sft"
    with pytest.raises(UserError, match=why):
        load_settings(method, "", [*(f"{stage}.{one}" for one in LLM), *given])


def test_settings_are_judged_as_a_whole():
    assert complete(dpo4rec("tiny"), {"oracle": {"hidden": 48, "heads": 3}}).oracle.heads == 3
    with pytest.raises(UserError, match="oracle: heads must divide hidden"):
        complete(dpo4rec("tiny"), {"oracle": {"heads": 3}})  # its hidden is 32
    with pytest.raises(UserError, match=r"oracle\.hiden: no such setting; there are architecture,"):
        complete(DPO4RecConfig(), {"oracle": {"hiden": 3}})


def test_paths_of_a_users_preset_count_from_its_folder(tmp_path):
    (tmp_path / "mine.toml").write_text(
        '[interactions]\nsource = "files"\nraw_folder = ""\n'
        '[interactions.files]\ninteractions = "r.csv"\nitems = "/data/i.csv"\n'
        '[reasonings]\ntemplate = "./t.jinja2"\n[policy]\nkind = "huggingface"\nmodel = "a/b"\n'
        '[recommender]\nencoder = "~nobody-of-this-name/e"\n'
    )
    (tmp_path / "linked").mkdir()
    link = tmp_path / "linked" / "mine.toml"
    link.symlink_to(tmp_path / "mine.toml")
    config = own_preset(link, DPO4RecConfig())
    assert config.interactions.files.interactions == str(tmp_path / "r.csv")
    assert config.interactions.files.items == "/data/i.csv"
    assert config.interactions.raw_folder == ""
    assert config.recommender.encoder == str(tmp_path / "~nobody-of-this-name" / "e")
    assert (config.reasonings.template, config.policy.model) == (str(tmp_path / "t.jinja2"), "a/b")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tiny", "", "tiny is the name of a packaged preset"),
        ("My Data", "", "a preset's name has only a-z, 0-9 and -"),
        ("mine", "[alignement]", "alignement: no such setting"),
        ("mine", "[oracle", r"mine\.toml: "),
    ],
)
def test_a_users_preset_that_cannot_be_deployed_is_refused(tmp_path, name, text, message):
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        own_preset(path, DPO4RecConfig())


def test_changes_are_what_differs_from_the_defaults_down_to_single_fields():
    assert changes(DPO4RecConfig(), DPO4RecConfig()) == {}
    assert changes(DPO4RecConfig(), dpo4rec("", "interactions.synthetic.noise=0.25")) == {
        "interactions": {"synthetic": {"noise": 0.25}}
    }


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("policy.model=foo", "policy.model has no effect here: it is used only when kind is"),
        ("interactions.files.interactions=own.csv", "used only when source is files"),
        ("policy.warm_up.text=liks", "used only when kind is huggingface (under policy)"),
        ("alignment.constant_eps=0.3", "used only when loss is cdpo"),
        ("alignment.beta=0.2", None),
        ('alignment={"beta": 0.2, "gamma": 1.0}', None),
        ("reasonings.template=movies", None),
        ("policy.bootstrap.hidden=64", None),
        ("alignment.gamma=1.0", "alignment.gamma has no effect here"),
    ],
)
def test_a_setting_that_decides_nothing_is_told(override, said):
    lines = idle(dpo4rec("", override), [override])
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


def test_settings_of_a_warm_up_that_is_switched_off_are_told():
    override = "policy.warm_up.text=liks"
    (line,) = idle(dpo4rec("smollm2-ml-100k", override), [override])
    assert line.endswith("it is used only when what it belongs to is switched on")


@pytest.mark.parametrize(
    "changes",
    [
        ["alignment.optimiser=grpo", "rounds.pairs=cumulative"],
        ["alignment.optimiser=listwise", "pairs.select=all_above_margin"],
    ],
)
def test_an_optimiser_of_all_samples_reads_each_prompt_once_and_by_who_wrote_it(changes):
    for change in changes:
        dpo4rec("", change)
    with pytest.raises(
        UserError, match=r"rounds.pairs must be new|only alignment.optimiser = pairs"
    ):
        dpo4rec("", *changes)


@pytest.mark.parametrize("model", [DPO4RecConfig, RosePOConfig, Runtime])
def test_the_form_shows_every_field_once_those_first_that_are_changed_most(model):
    shown = model.model_json_schema()
    for name, definition in [(model.__name__, shown), *shown["$defs"].items()]:
        places = [field["position"] for field in definition["properties"].values()]
        assert places == list(range(len(places))), name
    data = InteractionsConfig.model_json_schema()["properties"]
    assert list(data)[:2] == ["source", "files"]
    assert set(data) == set(InteractionsConfig.model_fields)


def test_a_warm_up_is_asked_as_the_reasonings_are_unless_it_says_otherwise():
    loaded = ("policy.kind=huggingface", "policy.model=smollm2", "policy.warm_up.n_prompts=50")
    asked = ("reasonings.template=books", "reasonings.history_items=7")
    first = dpo4rec("", *loaded, *asked).first_policy.warm_up
    assert (first.template, first.history_items) == ("books", 7)
    own = ("policy.warm_up.template=movies", "policy.warm_up.history_items=3")
    first = dpo4rec("", *loaded, *asked, *own).first_policy.warm_up
    assert (first.template, first.history_items) == ("movies", 3)
    assert first.min_words == 3
    assert "min_words" not in first.identity()  # what was warmed up before is still found
    short = dpo4rec("", *loaded, "reasonings.min_words=1").first_policy.warm_up
    assert (short.min_words, short.identity()["min_words"]) == (1, 1)
    told = ("reasonings.min_words=1", "policy.warm_up.min_words=5")
    assert dpo4rec("", *loaded, *told).first_policy.warm_up.min_words == 5
    assert dpo4rec("", *asked).first_policy == dpo4rec("", *asked).policy  # there is none
    with pytest.raises(UserError, match="merged into the weights: use quantisation = none"):
        dpo4rec("", *loaded, "policy.quantisation=nf4")
    with pytest.raises(UserError, match="a server would write with the LLM before it"):
        dpo4rec("", *loaded, "reasonings.writer=openai")
    with pytest.raises(UserError, match="a server would write with the LLM before it"):
        dpo4rec("", *loaded, "item_reasonings.write=true", "item_reasonings.writer=openai")
    with pytest.raises(UserError, match="the embedded one is trained on texts by rule anyway"):
        dpo4rec("", "policy.warm_up.n_prompts=50")
    other = dpo4rec("", *loaded, "policy.warm_up.seed=3").first_policy
    assert other.identity() != dpo4rec("", *loaded).first_policy.identity()


def test_what_an_llm_that_is_shown_candidates_does_not_read_makes_no_other_artifact():
    usual = RosePOConfig.model_validate({"sft": PICKING})
    changed = {"rejections": {"pool": 50}, "recommendations": {"beam": 30}}
    given = RosePOConfig.model_validate({"sft": PICKING} | changed)
    assert given.rejections.asked_as(given.sft.prompt) == usual.rejections.asked_as(
        usual.sft.prompt
    )
    assert given.judging == usual.recommendations
    in_lines = RosePOConfig.model_validate(changed)
    assert in_lines.rejections.asked_as(in_lines.sft.prompt).pool == 50
    assert in_lines.judging.beam == 30


def test_more_rejected_than_the_usual_pool_holds_stay_a_valid_setting():
    many = {"sft": PICKING | {"n_candidates": 40}, "rejections": {"n_rejected": 30, "pool": 50}}
    given = RosePOConfig.model_validate(many)
    assert given.rejections.asked_as(given.sft.prompt).pool == 50
