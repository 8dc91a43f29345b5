"""DPO4Rec on interactions alone, without a file of items: nothing to write by rule about them."""

import polars as pl

from flows.dpo4rec import stages
from recalign.config import InteractionsConfig, PolicyConfig
from recalign.llm.storage import MODEL
from recalign.schemas import INTERACTIONS, PROMPTS, RESULTS
from tests.tasks.tiny_run import CONFIG, direct


def test_a_run_whose_items_have_no_attributes_ends_with_its_report(finished, tmp_path):
    data = INTERACTIONS.read(finished.artifact("interactions"))
    names = {"user_id": "user_index", "item_id": "item_index", "timestamp": "timestamp"}
    data.select(**{n: pl.col(c).cast(pl.String) for n, c in names.items()}).write_csv(
        tmp_path / "taken.csv"
    )
    own = InteractionsConfig(source="files", files={"interactions": str(tmp_path / "taken.csv")})
    llm = finished.artifact("policy").path(MODEL)
    loaded = PolicyConfig(kind="huggingface", model=str(llm), chat_template="never")
    known = PROMPTS.read(finished.artifact("reasonings for fit, base"))["prompt"][0]
    (tmp_path / "titles.txt").write_text(known)  # the only words that this LLM knows
    asked = CONFIG.reasonings.model_copy(update={"template": str(tmp_path / "titles.txt")})
    walk = direct(tmp_path / "artifacts")
    changed = {"interactions": own, "policy": loaded, "reasonings": asked}
    stages(walk, CONFIG.model_copy(update=changed))
    rows = RESULTS.read(walk.artifact("evaluation"))["policy"].unique()
    assert {"aligned", "base", "none"} <= set(rows)
    assert "counts" not in set(rows)
    assert walk.artifact("report").path("report.html").exists()
