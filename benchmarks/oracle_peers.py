"""One peer's SASRec on given sequences: an epoch and its evaluation, under the peer's interpreter.

    VENV/bin/python benchmarks/oracle_peers.py rectools sequences.npz bce
        --batch 128 --batches 10 --hidden 50 --max-length 200

`benchmarks/oracle_speed.py` writes the sequences and starts this; nothing of recalign is imported.
Each peer trains and evaluates through its own data loading and its own loop; `--batches` of an
epoch are timed and scaled to the whole; with `--epochs N` all of N epochs are trained, and NDCG@10
of the users' last items, by the peer's own evaluation, is told too. One JSON line comes out.
"""

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stopwatch import WARM_UP, Found, Stopwatch, listening, result, users_per_second

N_NEGATIVES = 256  # of the sampled softmax
BUCKET = 8  # sequences RePlay encodes together: the fastest of 4, 8, 16, 32 and 128 here
PREFIXES = 2048  # RecBole's usual batch: each prefix of a sequence is an example of its own
Lists = list[list[int]]
LOSSES_OF = {
    "rectools": ("bce", "sampled", "full", "gbce"),
    "replay": ("bce", "sampled", "full"),
    "recbole": ("full",),
}


def sequences_in(path: Path) -> tuple[Lists, int]:
    """Every user's items (1..n) in order of time, and n."""
    stored = np.load(path)
    parts = np.split(stored["items"], stored["offsets"][1:-1])
    return [part.tolist() for part in parts], int(stored["n_items"])


def extent(given: argparse.Namespace) -> dict[str, Any]:
    """How far a Lightning trainer goes."""
    if given.epochs:
        return {"max_epochs": given.epochs}
    return {"max_epochs": 1, "limit_train_batches": WARM_UP + given.batches}


def evaluated(n_users: int, evaluate: Callable[[], Found], given: argparse.Namespace) -> Found:
    """Users a second, and the metric where it means anything."""
    told: Found = {}
    speed = users_per_second(n_users, lambda: told.update(evaluate()))
    return speed | told if given.epochs else speed


def rectools(users: Lists, n_items: int, given: argparse.Namespace) -> Found:
    """RecTools: `SASRecModel.fit`, then `recommend` and its NDCG@10."""
    import pandas as pd
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.metrics import NDCG, calc_metrics
    from rectools.models import SASRecModel

    lengths = [len(items) for items in users]
    table = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(users)), lengths),
            Columns.Item: np.concatenate(users),
            Columns.Weight: 1.0,
            Columns.Datetime: np.concatenate([np.arange(n) for n in lengths]),
        }
    )
    table[Columns.Datetime] = pd.to_datetime(table[Columns.Datetime], unit="s")
    back = table.groupby(Columns.User).cumcount(ascending=False)
    watch = Stopwatch()
    trainer = {
        **extent(given),
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    names = {"bce": "BCE", "sampled": "sampled_softmax", "full": "softmax", "gbce": "gBCE"}
    model = SASRecModel(
        n_blocks=2,
        n_heads=1,
        n_factors=given.hidden,
        session_max_len=given.max_length,
        loss=names[given.loss],
        n_negatives=1 if given.loss == "bce" else N_NEGATIVES,
        batch_size=given.batch,
        get_trainer_func=lambda: Trainer(callbacks=[listening(Callback, watch)], **trainer),
    )
    model.fit(Dataset.construct(table[back >= 2]))
    found = result(watch, -(-len(users) // given.batch), model.lightning_model)
    known = Dataset.construct(table[back >= 1])

    metrics = {"ndcg_at_10": NDCG(10, divide_by_achievable=True)}

    def evaluate() -> Found:
        shown = model.recommend(np.arange(len(users)), known, k=10, filter_viewed=True)
        return calc_metrics(metrics, shown, table[back == 0])

    return found | evaluated(len(users), evaluate, given)


def replay(users: Lists, n_items: int, given: argparse.Namespace) -> Found:
    """RePlay: Lightning over `ParquetModule`, length buckets on; validation with seen items out."""
    import lightning
    import pandas as pd
    from replay.data import FeatureHint, FeatureSource, FeatureType
    from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
    from replay.nn.lightning import LightningModule
    from replay.nn.lightning.callback import ComputeMetricsCallback
    from replay.nn.lightning.postprocessor import SeenItemsFilter
    from replay.nn.loss import BCESampled, CESampled
    from replay.nn.sequential import SasRec
    from replay.nn.sequential.length_bucket import LengthBucketedQueryEncoder
    from replay.nn.transform import UniformNegativeSamplingTransform
    from replay.nn.transform.template import make_default_sasrec_transforms

    schema = TensorSchema(
        TensorFeatureInfo(
            "item_id",
            is_seq=True,
            feature_type=FeatureType.CATEGORICAL,
            embedding_dim=given.hidden,
            padding_value=n_items,
            cardinality=n_items,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        )
    )
    longest, n = max(map(len, users)), given.max_length
    shapes = {"item_id": (n, n_items), "ground_truth": (1, -1), "seen_ids": (longest, -2)}
    validated = {k: {"shape": shape, "padding": value} for k, (shape, value) in shapes.items()}
    trained = {"item_id": {"shape": n + 1, "padding": n_items}}
    transforms = make_default_sasrec_transforms(schema)
    model = SasRec.from_params(
        schema, given.hidden, num_heads=1, num_blocks=2, max_sequence_length=n, dropout=0.2
    )
    model.body.encoder = LengthBucketedQueryEncoder(model.body.encoder, BUCKET)
    if given.loss != "full":  # the library shares its negatives over the batch: BCE has one for all
        n_negatives = 1 if given.loss == "bce" else N_NEGATIVES
        transforms["train"].append(UniformNegativeSamplingTransform(n_items, n_negatives))
        model.loss = BCESampled() if given.loss == "bce" else CESampled()
        model.loss.logits_callback = model.get_logits
    rows = [np.array(items) - 1 for items in users]
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("train.parquet", "validate.parquet")]
        pd.DataFrame({"item_id": [row[:-2][-n - 1 :] for row in rows]}).to_parquet(paths[0])
        known = {"item_id": [row[:-1][-n:] for row in rows], "seen_ids": [r[:-1] for r in rows]}
        pd.DataFrame(known | {"ground_truth": [row[-1:] for row in rows]}).to_parquet(paths[1])
        data = ParquetModule(
            batch_size=given.batch,
            metadata={"train": trained, "validate": validated},
            transforms={name: transforms[name] for name in ("train", "validate")},
            train_path=paths[0],
            validate_path=paths[1],
        )
        watch = Stopwatch()
        metrics = ComputeMetricsCallback(
            ["ndcg"], [10], [SeenItemsFilter(n_items, "seen_ids")], n_items, verbose=False
        )
        trainer = lightning.Trainer(
            **extent(given),
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[listening(lightning.Callback, watch)],
        )
        module = LightningModule(model)
        trainer.fit(module, datamodule=data)
        found = result(watch, -(-len(users) // given.batch), model)
        validator = lightning.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[metrics]
        )

        def evaluate() -> Found:
            (told,) = validator.validate(module, datamodule=data, verbose=False)
            return {"ndcg_at_10": told["ndcg@10"]}

        return found | evaluated(len(users), evaluate, given)


class Watched:
    """The first `n` batches of RecBole's loader."""

    shuffle = False  # asked by the trainer only where several machines train

    def __init__(self, loader: Any, n: int, watch: Stopwatch) -> None:
        self._loader, self._n, self._watch = loader, n, watch

    def __iter__(self) -> Iterator[Any]:
        for _, batch in zip(range(self._n), self._loader, strict=False):
            self._watch.batch_starts()
            yield batch
            self._watch.batch_ends()


def recbole(users: Lists, n_items: int, given: argparse.Namespace) -> Found:
    """RecBole: an epoch of its `Trainer` over all prefixes, then its full-sort `evaluate`."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes logs and its TensorBoard files here
        Path("ml").mkdir()
        lines = ["user_id:token\titem_id:token\ttimestamp:float"]
        for user, items in enumerate(users):  # the last length + 3: one prefix for each target
            shown = items[-given.max_length - 3 :]
            lines += [f"{user}\t{item}\t{place}" for place, item in enumerate(shown)]
        Path("ml/ml.inter").write_text("\n".join(lines))
        settings = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "metrics": ["NDCG"],
            "topk": [10],
            "valid_metric": "NDCG@10",
            "train_neg_sample_args": None,
            "MAX_ITEM_LIST_LENGTH": given.max_length,
            "hidden_size": given.hidden,
            "inner_size": given.hidden,
            "n_heads": 1,
            "train_batch_size": PREFIXES,
            "use_gpu": False,
            "state": "ERROR",
        }
        config = Config("SASRec", "ml", config_dict=settings)
        train, _, test = data_preparation(config, create_dataset(config))
        model = get_model("SASRec")(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
        watch = Stopwatch()
        trainer._train_epoch(Watched(train, WARM_UP + given.batches, watch), 0)
        found = result(watch, len(train), model)

        def evaluate() -> Found:
            return {"ndcg_at_10": trainer.evaluate(test, load_best_model=False)["ndcg@10"]}

        return found | evaluated(len(users), evaluate, given)


PEERS = {"rectools": rectools, "replay": replay, "recbole": recbole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("loss", choices=["bce", "sampled", "full", "gbce"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--max-length", type=int, default=200)
    given = parser.parse_args()
    if given.epochs and given.peer == "recbole":
        parser.error("RecBole is only timed: an epoch of its takes hours")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    users, n_items = sequences_in(given.sequences)
    print(json.dumps(PEERS[given.peer](users, n_items, given)))


if __name__ == "__main__":
    main()
