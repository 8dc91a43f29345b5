"""What the oracle's manifest tells is true of the oracle that is kept."""

import pytest

from recalign.oracle.fit import OracleData
from recalign.oracle.storage import load_oracle
from recalign.splits.phases import oracle_validation
from tasks.tables import read_tables


def test_its_validation_is_that_of_the_model_that_is_kept_which_may_read_fewer_items(finished):
    made = finished.artifact("oracle")
    tables = read_tables(finished.artifact("interactions"), finished.artifact("splits"))
    seen = tables.before("oracle", tables.windows["fit_start"].to_numpy())
    asked = oracle_validation(tables.windows)
    model, _ = load_oracle(made.folder)
    told = made.manifest.figures
    assert told["reads"] == model.longest < model.config.max_length
    reached = OracleData(seen, asked.users, asked.targets(tables.sequences)).ndcg_at_10(model)
    assert told["best_valid_ndcg_at_10"] == pytest.approx(reached.mean(), abs=1e-9)
