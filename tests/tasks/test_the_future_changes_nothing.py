"""Whatever follows a cut-off in the raw data, all that is made before it is equal to the byte.

Users' futures are changed, permuted and deleted, and both methods run on the files. An oracle that
was fitted on whole sequences, a sampler that looks ahead, or a text that tells too much would show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flows.dpo4rec import begin
from flows.rosepo import Contest
from recalign.config import (
    ComparedRow,
    DPO4RecConfig,
    FilesSource,
    InteractionsConfig,
    RejectionsConfig,
    RosePOAlignmentConfig,
    RosePOConfig,
    Runtime,
    SftConfig,
    SmoothingConfig,
    SplitsConfig,
    TitleModelConfig,
)
from tasks.engine.run import StoppedAfter
from tasks.interactions import interactions, raw_files
from tasks.oracle import oracle, oracle_files
from tasks.sft import sft, sft_files
from tasks.splits import splits
from tests.tasks.tiny_run import CONFIG, Direct

N_USERS, N_ITEMS = 40, 30
SIZES = {"fit": 2, "reward": 3, "valid": 2, "test": 2}
"""Items of each window, from the end of a sequence."""
POLICY = ["policy", "reasonings for fit, base"]
READER = ["oracle", "recommender, base", "reasonings for reward, base"]
ALIGNED = ["reasonings for valid, base", "rewards, round 1", "pairs, round 1", "alignment, round 1"]
DRAWN = ["oracle", "rejections, semantic", "rejections, popularity",
         "smoothing, popularity pairwise"]  # fmt: skip
FOLDED = ["fold_oracles"]  # read validation, as the early stop of SFT does
TUNED = ["sft", "rejections, self_hard", "smoothing, self_hard pairwise", "reference, self_hard",
         "alignment, self_hard, eps"]  # fmt: skip
MADE_BEFORE = {
    "dpo4rec": {"fit": POLICY, "reward": POLICY + READER, "valid": POLICY + READER + ALIGNED},
    "rosepo": {"valid": DRAWN, "test": DRAWN + FOLDED + TUNED},
}
"""What a method has made before the window is looked into, in the order of making."""
TOLD_LATER = {"describe.parquet"}
"""Counts for the report how many rejected items the user took after all: nothing trains on it."""


def sequences() -> list[list[int]]:
    """15 to 17 different items of every user; each item stands in some history."""
    random = np.random.default_rng(5)
    lengths = random.integers(15, 18, N_USERS)
    made = [random.permutation(N_ITEMS)[:n].tolist() for n in lengths]
    assert {item for own in made for item in own[: -sum(SIZES.values())]} == set(range(N_ITEMS))
    return made


def changed(future: list[int], free: list[int], n_windows: int) -> list[int]:
    """Other items."""
    return free[: len(future)]


def permuted(future: list[int], free: list[int], n_windows: int) -> list[int]:
    """The same items the other way round."""
    return future[::-1]


def deleted(future: list[int], free: list[int], n_windows: int) -> list[int]:
    """One item for each window that is left, and not the first ones."""
    return future[-n_windows:]


Future = Callable[[list[int], list[int], int], list[int]]
FUTURES: list[Future] = [changed, permuted, deleted]


@dataclass(frozen=True)
class Data:
    """Raw files, and the windows that cut them at the same places."""

    source: InteractionsConfig
    windows: SplitsConfig


def write(folder: Path, window: str = "test", future: Future | None = None) -> Data:
    """The sequences as files; from the start of `window` on as `future` has it."""
    later = list(SIZES)[list(SIZES).index(window) :]
    n_after, sizes = sum(SIZES[name] for name in later), dict(SIZES)
    taken = sequences()
    if future is not None:
        taken = []
        for own in sequences():
            free = [item for item in range(N_ITEMS) if item not in own]
            taken.append(own[:-n_after] + future(own[-n_after:], free, len(later)))
        sizes |= dict.fromkeys(later, 1) if future is deleted else {}
    folder.mkdir(parents=True)
    rows = [(f"u{u:02}", f"i{item:02}", 1000 * place + u)
            for u, own in enumerate(taken) for place, item in enumerate(own)]  # fmt: skip
    pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row").write_csv(
        folder / "taken.csv"
    )
    items = [(f"i{i:02}", f"Title {i}", f"g{i % 5}", f"e{i % 3}") for i in range(N_ITEMS)]
    pl.DataFrame(items, ["item_id", "title", "genre", "era"], orient="row").write_csv(
        folder / "items.csv"
    )
    files = FilesSource(
        interactions=str(folder / "taken.csv"), items=str(folder / "items.csv"),
        attribute_columns=["genre", "era"],
    )  # fmt: skip
    windows = CONFIG.splits.model_copy(update=sizes | {"n_negatives": 10})
    return Data(InteractionsConfig(source="files", files=files), windows)


@dataclass
class Until(Direct):
    """A walk that ends after the stage run of the label `last`."""

    last: str = ""

    def __call__(self, stage, config, inputs=None, *, label="", files=None, force=False):
        made = super().__call__(stage, config, inputs, label=label, files=files, force=force)
        if self.last in (label, stage.name):
            raise StoppedAfter(self.last)
        return made


def dpo4rec(walk: Until, data: Data) -> None:
    """Up to the alignment of round 1."""
    config = CONFIG.model_copy(update={"interactions": data.source, "splits": data.windows})
    rounds = begin(walk, DPO4RecConfig.model_validate(config.model_dump()))
    rounds.align(1, rounds.frozen, None)


def rosepo(walk: Until, data: Data) -> None:
    """Pairs that need no SFT model, then one row from SFT to alignment."""
    config = RosePOConfig(
        interactions=data.source,
        splits=data.windows,
        oracle=CONFIG.oracle,
        sft=SftConfig(
            bootstrap=TitleModelConfig(hidden=16, layers=1, heads=2, item_text=False),
            history_items=6, epochs=1, evaluations=1, n_valid=40,
        ),
        rejections=RejectionsConfig(n_pairs=60, pool=8, neighbours=5),
        alignment=RosePOAlignmentConfig(batch_size=16, micro_batch_size=16, evaluations=1),
        recommendations={"list_length": 8},
    )  # fmt: skip
    made = walk(interactions, config.interactions, files=raw_files(data.source, walk.runtime))
    world = {"interactions": made, "splits": walk(splits, config.splits, {"interactions": made})}
    backbone = walk(oracle, config.oracle, world, files=oracle_files(config.oracle))
    contest = Contest(walk, config, world, backbone, backbone)
    contest.reject("semantic")
    contest.smooth("pairwise", "popularity", contest.reject("popularity"))
    doubting = SmoothingConfig(oracle="cross_fitted")
    Contest(walk, config.model_copy(update={"smoothing": doubting}), world, backbone,
            backbone).judging_oracle()  # fmt: skip
    contest.sft = walk(sft, config.sft, world, files=sft_files(config.sft))
    contest.align(ComparedRow(label="self_hard, eps", kind="aligned", strategy="self_hard",
                              estimator="pairwise"))  # fmt: skip


METHODS = {"dpo4rec": dpo4rec, "rosepo": rosepo}


def outputs(root: Path, method: str, data: Data, labels: list[str]) -> dict[str, dict[str, str]]:
    """The digests of the files of each artifact, by label."""
    walk = Until(Runtime(root=str(root), device="cpu", threads=1), last=labels[-1])
    with pytest.raises(StoppedAfter):
        METHODS[method](walk, data)
    found = {label: walk.artifact(label).manifest.outputs for label in labels}
    return {
        label: {name: file.sha256 for name, file in files.items() if name not in TOLD_LATER}
        for label, files in found.items()
    }


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """What a method makes of the sequences as they are."""

    @cache
    def made(method):
        place = tmp_path_factory.mktemp(method)
        labels = list(MADE_BEFORE[method].values())[-1]
        return outputs(place / "root", method, write(place / "raw"), labels)

    return made


@pytest.mark.parametrize(
    ("method", "window", "future"),
    [
        ("dpo4rec", "fit", deleted),
        ("dpo4rec", "reward", changed),
        *(("dpo4rec", "valid", future) for future in FUTURES),
        ("rosepo", "valid", changed),
        *(("rosepo", "test", future) for future in FUTURES),
    ],
)
def test_all_that_is_made_before_a_cut_off_is_equal_to_the_byte(
    untouched, tmp_path, method, window, future
):
    labels = MADE_BEFORE[method][window]
    data = write(tmp_path / "raw", window, future)
    found = outputs(tmp_path / "root", method, data, labels)
    expected = untouched(method)
    assert [label for label in labels if found[label] != expected[label]] == []
    assert all(found.values())


def test_the_futures_do_change_the_tables_that_hold_them(tmp_path):
    files = [write(tmp_path / "as they are")]
    files += [write(tmp_path / one.__name__, "valid", one) for one in FUTURES]
    taken = [pl.read_csv(data.source.files.interactions) for data in files]
    for other in taken[1:]:
        assert not other.equals(taken[0])
        early = [table.filter(pl.col("timestamp") < 11_000) for table in (other, taken[0])]
        assert early[0].equals(early[1])
