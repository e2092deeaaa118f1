"""A data set for classification: an .npz file with X, the samples, and y, their labels."""

from __future__ import annotations

import os
import tempfile
from typing import Any, NamedTuple

import numpy as np

LEAST = 20


class Part(NamedTuple):
    """Samples, and the index of each sample's label among the classes."""

    x: Any
    y: Any


class Dataset(NamedTuple):
    """A data set in three parts: 70 % to train on, 15 % to validate while training, 15 % to test at the end."""

    train: Part
    val: Part
    test: Part
    classes: Any
    scale: Any  # the divisor of each feature


def load(path: str, seed: int) -> Dataset:
    """Reads a data set and splits it. The same file and seed give the same parts in each process.

    Args:
        path: The file. X has one sample in each row. More dimensions, such as those of images, are flattened.
        seed: Decides which samples each part gets.

    Returns:
        The data set, with each feature divided by its largest absolute value in the training part.
    """
    try:
        with np.load(path) as file:
            names = file.files
            arrays = [file[name] for name in ("X", "y") if name in names]
    except OSError as error:
        raise OSError(f"the data set {path} cannot be read: {error.strerror or error}") from None
    except Exception:  # each kind of damage has an exception of its own
        raise ValueError(
            f"{path} is no .npz file of plain arrays; numpy.savez(file, X=..., y=...) writes one"
        ) from None
    if len(arrays) < 2:
        raise ValueError(
            f"{path} has the arrays {', '.join(names) or '(none)'}, but X, the samples, and y, their labels, are needed"
        )
    x, y = arrays
    if x.dtype.kind not in "biuf" or x.ndim < 2 or 0 in x.shape[1:] or y.ndim != 1 or len(x) != len(y):
        raise ValueError(
            f"{path} has X of {x.dtype} {x.shape} and y {y.shape}; "
            "X is to be numbers, a row for each sample, and y as many labels"
        )
    if len(x) < LEAST:
        raise ValueError(f"{path} has {len(x)} samples; at least {LEAST} are needed")
    x = x.reshape(len(x), -1).astype(float)
    if not np.isfinite(x).all():
        raise ValueError(f"{path} has numbers in X that are not finite; remove or replace them")
    classes, y = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{path} has only the label {classes[0]} in y; there is nothing to learn")

    order = np.random.default_rng(seed).permutation(len(x))
    rest = len(x) * 15 // 100
    train, val, test = order[2 * rest :], order[:rest], order[rest : 2 * rest]
    scale = np.abs(x[train]).max(axis=0)
    scale[scale == 0] = 1
    x /= scale
    return Dataset(Part(x[train], y[train]), Part(x[val], y[val]), Part(x[test], y[test]), classes, scale)


def shard(part: Part, i: int, n: int) -> Part:
    """Returns a copy of every nth sample, from the ith on."""
    return Part(part.x[i::n].copy(), part.y[i::n].copy())


def digits(directory: str) -> str:
    """Writes scikit-learn's 1,797 images of handwritten digits, unless the file exists. Returns its path."""
    path = os.path.join(directory, "digits.npz")
    if not os.path.exists(path):
        from sklearn.datasets import load_digits

        data = load_digits()
        save(path, X=data.data.astype(np.uint8), y=data.target)
    return path


def save(path: str, **arrays: Any) -> None:
    """Writes an .npz file atomically: there is the old file or the new one, never half of it."""
    directory = os.path.dirname(path)
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        unfinished = os.path.join(temporary, "unfinished.npz")
        np.savez(unfinished, **arrays)
        os.replace(unfinished, path)
