"""Rejected items that are drawn among neighbours need as many neighbours."""

from typing import Any

import pytest
from pydantic import ValidationError

from recalign.config import RejectionsConfig

SEMANTIC: dict[str, Any] = {"strategy": "semantic", "n_rejected": 6}
MIX: dict[str, Any] = {"strategy": "mix", "n_rejected": 10, "neighbours": 5}


def test_more_rejected_than_there_are_neighbours_to_draw_them_from_are_refused():
    assert RejectionsConfig.model_validate(SEMANTIC | {"neighbours": 6}).neighbours == 6
    with pytest.raises(ValidationError, match="neighbours = 5 must be at least 6"):
        RejectionsConfig.model_validate(SEMANTIC | {"neighbours": 5})
    mostly = MIX | {"mix": {"self_hard": 0, "semantic": 9, "popularity": 1}}
    with pytest.raises(ValidationError, match="neighbours = 5 must be at least 9"):
        RejectionsConfig.model_validate(mostly)


@pytest.mark.parametrize("strategy", ["random", "popularity"])
def test_who_draws_no_neighbours_needs_none(strategy):
    given = SEMANTIC | {"strategy": strategy, "neighbours": 5}
    assert RejectionsConfig.model_validate(given).neighbours == 5
    without = RejectionsConfig.model_validate(MIX | {"mix": {"semantic": 0}})
    assert without.n_rejected == 10
