"""The worker of the distributed-training example.

One worker coordinates in distributed_training. It asks the host to train each epoch on all shards, averages the
results, and validates. The others train: each has one shard in a session.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Generator, List, Optional

import dataset
import numpy as np
from mlp import MLP, MOMENTUM
from snakepit_bridge import Worker

worker = Worker()

Row = Dict[str, Any]
DEFAULTS = {"halve_every": 10, "patience": 10, "seed": 0}  # of a training_config
FIELDS = ("epoch", "train_loss", "val_loss", "train_acc", "val_acc", "learning_rate")


@worker.command
def distributed_training(
    ctx: Any,
    model_config: Dict[str, Any],
    training_config: Dict[str, Any],
    dataset_path: str,
    output_folder: str = ".",
    resume: bool = False,
) -> Generator[Row, None, Dict[str, Any]]:
    """Trains a network on all shards at once, by the host's function train_shards.

    Args:
        ctx: The call.
        model_config: architecture, always "mlp"; layers, the number of hidden layers; hidden_size, the units of each.
        training_config: epochs, batch_size and learning_rate. These have defaults: halve_every, the epochs after which
            the learning rate is halved; patience, the most epochs without a better one; and seed.
        dataset_path: An .npz file; see dataset.py.
        output_folder: Where to write the best model, the checkpoint and the picture of the curves.
        resume: Whether to continue from the checkpoint in that directory, if there is one.

    Yields:
        epoch, train_loss, val_loss, train_acc, val_acc and learning_rate for each epoch. A resumed training yields its
        earlier epochs again.

    Returns:
        final_model_path and best_val_accuracy, with best_epoch, curves_path and is_final.
    """
    training_config = {**DEFAULTS, **training_config}
    data = dataset.load(dataset_path, training_config["seed"])
    model = network(model_config, data)
    os.makedirs(output_folder, exist_ok=True)
    checkpoint = os.path.join(output_folder, "checkpoint.npz")
    model_path = os.path.join(output_folder, "mlp-best.npz")
    history: List[Row] = []
    parameters = model.initial(training_config["seed"])
    if resume and os.path.exists(checkpoint):
        with np.load(checkpoint) as file:
            parameters = file["parameters"]
            history = [{**dict(zip(FIELDS, row)), "epoch": int(row[0])} for row in file["history"].tolist()]
    elif os.path.exists(checkpoint):
        os.remove(checkpoint)

    yield from history
    while len(history) < training_config["epochs"] and not stale(history, training_config["patience"]):
        epoch = len(history) + 1
        rate = schedule(training_config, epoch)
        parts = list(ctx.stream("train_shards", epoch=epoch, learning_rate=rate, parameters=parameters))
        samples = [part["samples"] for part in parts]
        parameters = np.average([part["parameters"] for part in parts], axis=0, weights=samples)
        train_loss, train_acc = np.average(
            [[part["train_loss"], part["train_acc"]] for part in parts], axis=0, weights=samples
        ).tolist()
        val_loss, val_acc = model.score(parameters, *data.val)
        if not np.isfinite([train_loss, val_loss]).all():
            raise ArithmeticError(
                f"the training diverged in epoch {epoch}: the loss is no number; try a lower learning rate than {rate}"
            )
        history.append(dict(zip(FIELDS, (epoch, train_loss, val_loss, train_acc, val_acc, rate))))
        if best(history)["epoch"] == epoch:
            dataset.save(
                model_path,
                parameters=parameters,
                sizes=model.sizes,
                classes=data.classes,
                scale=data.scale,
                seed=training_config["seed"],
            )
        dataset.save(checkpoint, parameters=parameters, history=[[row[field] for field in FIELDS] for row in history])
        yield history[-1]

    import curves  # here, because matplotlib takes long to import and only this needs it

    curves_path = os.path.join(output_folder, "curves.png")
    curves.draw(history, best(history)["epoch"], curves_path)
    return {
        "is_final": True,
        "final_model_path": model_path,
        "best_val_accuracy": best(history)["val_acc"],
        "best_epoch": best(history)["epoch"],
        "curves_path": curves_path,
    }


def schedule(training_config: Dict[str, Any], epoch: int) -> float:
    """Returns the learning rate of an epoch."""
    return float(training_config["learning_rate"] * 0.5 ** ((epoch - 1) // training_config["halve_every"]))


def best(history: List[Row]) -> Row:
    """Returns the epoch with the highest validation accuracy. If several have it, the one with the lowest loss."""
    return max(history, key=lambda row: (row["val_acc"], -row["val_loss"]))


def stale(history: List[Row], patience: int) -> bool:
    """Reports whether the best epoch is so long ago that the training stops."""
    return bool(history) and len(history) - best(history)["epoch"] >= patience


@worker.command
def train_shard(
    ctx: Any,
    model_config: Dict[str, Any],
    training_config: Dict[str, Any],
    dataset_path: str,
    shard: int,
    shards: int,
    epoch: int,
    learning_rate: float,
    parameters: Any,
) -> Generator[Row, None, Row]:
    """Trains one epoch on the session's shard. A new session first reads the shard from the data set.

    The result depends on the arguments alone, so any worker can repeat an epoch that was cut off.

    Args:
        ctx: The call.
        model_config: See distributed_training.
        training_config: See distributed_training.
        dataset_path: See distributed_training.
        shard: Which shard of the training part this session has, from 0.
        shards: The number of shards.
        epoch: The epoch, from 1.
        learning_rate: The length of a step.
        parameters: The parameters to start from.

    Yields:
        The number of finished samples and the worker's process, at most eight times.

    Returns:
        parameters, samples, and train_loss and train_acc while training.
    """
    training_config = {**DEFAULTS, **training_config}
    state = ctx.session.state
    if not state:
        data = dataset.load(dataset_path, training_config["seed"])
        state["model"], state["part"] = network(model_config, data), dataset.shard(data.train, shard, shards)
    model, (x, y) = state["model"], state["part"]
    order = np.random.default_rng([training_config["seed"], epoch, shard]).permutation(len(y))
    size = training_config["batch_size"]
    parameters, velocity = parameters.copy(), np.zeros_like(parameters)
    loss, right, told = 0.0, 0, 0
    with np.errstate(over="ignore", invalid="ignore"):  # a diverging training shows in its loss
        for start in range(0, len(y), size):
            batch = order[start : start + size]
            gradient, losses, rights = model.gradient(parameters, x[batch], y[batch])
            velocity *= MOMENTUM
            velocity -= learning_rate * gradient
            parameters += velocity
            loss += losses
            right += rights
            done = start + len(batch)
            if done * 8 // len(y) > told:
                told = done * 8 // len(y)
                yield {"samples": done, "worker_pid": os.getpid()}
    return {"parameters": parameters, "samples": len(y), "train_loss": loss / len(y), "train_acc": right / len(y)}


@worker.command
def open_dataset(
    model_config: Dict[str, Any], training_config: Dict[str, Any], dataset_path: Optional[str], cache: str, shards: int
) -> Dict[str, Any]:
    """Checks the data of a training and returns its sizes.

    Without a dataset_path, the data are the digits, from the cache directory.
    """
    path = dataset_path or dataset.digits(cache)
    data = dataset.load(path, {**DEFAULTS, **training_config}["seed"])
    if len(data.train.y) < shards:
        raise ValueError(f"{path} has {len(data.train.y)} samples to train on, too few for {shards} workers")
    return {
        "dataset_path": path,
        "samples": {"train": len(data.train.y), "val": len(data.val.y), "test": len(data.test.y)},
        "features": data.train.x.shape[1],
        "classes": len(data.classes),
        "parameters": network(model_config, data).size,
    }


@worker.command
def evaluate_model(model_path: str, dataset_path: str) -> Dict[str, Any]:
    """Loads a saved model and scores it on the test part of its data set."""
    with np.load(model_path) as file:
        data = dataset.load(dataset_path, int(file["seed"]))
        logs = MLP(file["sizes"]).forward(file["parameters"], data.test.x)[-1]
        right = file["classes"][logs.argmax(axis=1)] == data.classes[data.test.y]
    return {"accuracy": float(right.mean()), "samples": len(right)}


def network(model_config: Dict[str, Any], data: dataset.Dataset) -> MLP:
    """Returns the network of a configuration."""
    if model_config["architecture"] != "mlp":
        raise ValueError(f"there is no architecture {model_config['architecture']!r}; there is mlp")
    return MLP([data.train.x.shape[1], *[model_config["hidden_size"]] * model_config["layers"], len(data.classes)])


if __name__ == "__main__":
    worker.run()
