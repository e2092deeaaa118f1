"""Tests of the worker's parts without a host."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Tuple

import dataset
import mlp
import numpy as np
import pytest
import worker

MODEL = {"architecture": "mlp", "layers": 1, "hidden_size": 16}
TRAINING = {"epochs": 6, "batch_size": 32, "learning_rate": 0.1, "halve_every": 3, "patience": 6, "seed": 1}


class Host:
    """The host's part of a call: it trains the shards one after the other."""

    def __init__(self, path: str, shards: int, training: Dict[str, Any] = TRAINING) -> None:
        self.path, self.training = path, training
        self.sessions = [SimpleNamespace(session=SimpleNamespace(state={})) for _ in range(shards)]

    def stream(self, name: str, **step: Any) -> Iterator[Dict[str, Any]]:
        assert name == "train_shards"
        for i, ctx in enumerate(self.sessions):
            yield drain(worker.train_shard(ctx, MODEL, self.training, self.path, i, len(self.sessions), **step))[1]


def drain(stream: Any) -> Tuple[List[Any], Any]:
    items = []
    while True:
        try:
            items.append(next(stream))
        except StopIteration as end:
            return items, end.value


@pytest.fixture(scope="module")
def digits(tmp_path_factory: Any) -> str:
    return dataset.digits(str(tmp_path_factory.mktemp("cache") / "new"))


def test_training_improves_and_the_saved_model_predicts(digits: str, tmp_path: Path) -> None:
    rows, result = drain(worker.distributed_training(Host(digits, 3), MODEL, TRAINING, digits, str(tmp_path)))
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["learning_rate"] for row in rows] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05]
    assert all(list(row) == list(worker.FIELDS) for row in rows)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 4
    assert result["best_val_accuracy"] == max(row["val_acc"] for row in rows) > 0.9
    tested = worker.evaluate_model(result["final_model_path"], digits)
    assert tested["accuracy"] > 0.9
    assert tested["samples"] == 269
    assert Path(result["curves_path"]).read_bytes().startswith(b"\x89PNG")


def test_what_a_configuration_leaves_out_has_defaults(digits: str, tmp_path: Path) -> None:
    config = {"epochs": 2, "batch_size": 32, "learning_rate": 0.001}
    rows, _ = drain(worker.distributed_training(Host(digits, 1, config), MODEL, config, digits, str(tmp_path)))
    assert [row["learning_rate"] for row in rows] == [0.001, 0.001]


def test_a_resumed_training_comes_to_the_same(digits: str, tmp_path: Path) -> None:
    whole, result = drain(
        worker.distributed_training(Host(digits, 2), MODEL, TRAINING, digits, str(tmp_path / "whole"))
    )
    cut = worker.distributed_training(Host(digits, 2), MODEL, TRAINING, digits, str(tmp_path / "cut"))
    assert [next(cut) for _ in range(3)] == whole[:3]
    cut.close()
    resumed, again = drain(
        worker.distributed_training(Host(digits, 2), MODEL, TRAINING, digits, str(tmp_path / "cut"), resume=True)
    )
    assert resumed == whole
    assert Path(again["final_model_path"]).read_bytes() == Path(result["final_model_path"]).read_bytes()
    anew = worker.distributed_training(Host(digits, 2), MODEL, {**TRAINING, "seed": 2}, digits, str(tmp_path / "cut"))
    assert next(anew)["epoch"] == 1  # not from the checkpoint
    anew.close()


@pytest.mark.parametrize("sizes", [[5, 3], [5, 4, 3], [5, 6, 4, 3]])
def test_the_gradient_is_the_slope_of_the_loss(sizes: List[int]) -> None:
    random = np.random.default_rng(0)
    model = mlp.MLP(sizes)
    parameters = model.initial(3) + random.normal(0, 0.1, model.size)
    x, y = random.normal(size=(7, 5)), random.integers(0, 3, 7)
    gradient, loss, right = model.gradient(parameters, x, y)
    assert (loss / 7, right / 7) == pytest.approx(model.score(parameters, x, y))
    for i in range(model.size):
        step = np.zeros(model.size)
        step[i] = 1e-6
        slope = (model.score(parameters + step, x, y)[0] - model.score(parameters - step, x, y)[0]) / 2e-6
        assert gradient[i] == pytest.approx(slope, abs=1e-7)


def test_large_scores_do_not_overflow() -> None:
    model = mlp.MLP([1, 2])
    loss, accuracy = model.score(np.array([1e4, -1e4, 0, 0]), np.array([[1.0]]), np.array([0]))
    assert (loss, accuracy) == (0, 1)


def test_the_parts_and_shards_have_each_sample_once(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, X=np.arange(1, 101).reshape(100, 1, 1), y=["even", "odd"] * 50)
    data = dataset.load(str(path), 5)
    assert (len(data.train.y), len(data.val.y), len(data.test.y)) == (70, 15, 15)
    shards = [dataset.shard(data.train, i, 3) for i in range(3)]
    assert max(len(shard.y) for shard in shards) - min(len(shard.y) for shard in shards) <= 1
    everything = [*shards, data.val, data.test]
    values = np.concatenate([part.x[:, 0] for part in everything]) * data.scale
    assert sorted(np.round(values).astype(int)) == list(range(1, 101))
    labels = data.classes[np.concatenate([part.y for part in everything])]
    assert [str(label) for label in labels] == ["odd" if round(value) % 2 == 0 else "even" for value in values]
    again, other = dataset.load(str(path), 5), dataset.load(str(path), 6)
    assert (again.train.x == data.train.x).all()
    assert (other.train.x != data.train.x).any()


def test_the_best_epoch_and_the_early_stop() -> None:
    def history(*pairs: Tuple[float, float]) -> List[Dict[str, float]]:
        return [{"epoch": i, "val_acc": acc, "val_loss": loss} for i, (acc, loss) in enumerate(pairs, start=1)]

    assert worker.best(history((0.5, 1), (0.9, 0.5), (0.9, 0.4), (0.9, 0.4), (0.8, 0.1)))["epoch"] == 3
    assert not worker.stale([], 1)
    assert not worker.stale(history((0.5, 1), (0.4, 1)), 2)
    assert worker.stale(history((0.5, 1), (0.4, 1), (0.4, 1)), 2)


def test_bad_data_sets(tmp_path: Path) -> None:
    x, y = np.ones((20, 2)), np.arange(20) % 2
    for arrays, message in (
        ({"X": x, "labels": y}, "has the arrays X, labels, but X, the samples, and y, their labels, are needed"),
        ({}, "has the arrays (none), but"),
        ({"X": x, "y": y[1:]}, "has X of float64 (20, 2) and y (19,); X is to be numbers"),
        ({"X": x[:, :0], "y": y}, "has X of float64 (20, 0) and y (20,); X is to be numbers"),
        ({"X": x.astype(str), "y": y}, "has X of <U32 (20, 2) and y (20,); X is to be numbers"),
        ({"X": x[:19], "y": y[:19]}, "has 19 samples; at least 20 are needed"),
        ({"X": np.where(x, np.nan, x), "y": y}, "has numbers in X that are not finite"),
        ({"X": x, "y": y * 0}, "has only the label 0 in y"),
        ({"X": np.full((20, 2), None), "y": y}, "is no .npz file of plain arrays"),
    ):
        path = str(tmp_path / "data.npz")
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=f"^{re.escape(path)} {re.escape(message)}"):
            dataset.load(path, 0)
    np.save(tmp_path / "one.npy", x)
    with pytest.raises(ValueError, match=r"one\.npy is no \.npz file of plain arrays"):
        dataset.load(str(tmp_path / "one.npy"), 0)


def test_more_workers_than_samples(tmp_path: Path) -> None:
    path = str(tmp_path / "data.npz")
    np.savez(path, X=np.eye(20), y=np.arange(20))
    with pytest.raises(ValueError, match="has 14 samples to train on, too few for 15 workers"):
        worker.open_dataset(MODEL, TRAINING, path, "", 15)
