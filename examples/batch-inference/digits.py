"""The example's default data: scikit-learn's 1,797 images of handwritten digits, and a classifier for them."""

from __future__ import annotations

import os
import tempfile
from typing import Any, List, Tuple

import joblib
import numpy as np
import sklearn
from PIL import Image
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

ENLARGED = 64  # pixels a side, large enough to look at


def split() -> Tuple[Any, List[int], List[int]]:
    """Returns the digits, the indices of the training part (two thirds), and those of the held-out part."""
    digits = load_digits()
    train, held_out = train_test_split(
        np.arange(len(digits.target)), test_size=1 / 3, stratify=digits.target, random_state=0
    )
    return digits, sorted(train), sorted(held_out)


def model(directory: str) -> str:
    """Returns the classifier's file. Trains it first, unless this scikit-learn has already done so."""
    path = os.path.join(directory, f"digits-scikit-learn-{sklearn.__version__}.joblib")
    if not os.path.exists(path):
        digits, train, _ = split()
        # Calibrated, so that it has probabilities.
        classifier = CalibratedClassifierCV(SVC(gamma=0.001), ensemble=False)
        classifier.fit(digits.data[train], digits.target[train])
        os.makedirs(directory, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as temporary:
            unfinished = os.path.join(temporary, "model")
            joblib.dump(classifier, unfinished)
            os.replace(unfinished, path)
    return path


def images(directory: str) -> List[str]:
    """Writes the held-out images as PNG files, unless they exist. Returns all files.

    One more file is cut off in the middle. A name such as digit-0007-is-3.png says which image it is and which digit it
    shows.
    """
    path = os.path.join(directory, "held-out")
    if not os.path.isdir(path):
        digits, _, held_out = split()
        os.makedirs(directory, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as temporary:
            unfinished = os.path.join(temporary, "held-out")
            os.mkdir(unfinished)
            for i in held_out:
                pixels = np.round(digits.images[i] * (255 / 16)).astype(np.uint8)
                image = Image.fromarray(pixels).resize((ENLARGED, ENLARGED), Image.Resampling.NEAREST)
                image.save(os.path.join(unfinished, f"digit-{i:04}-is-{digits.target[i]}.png"))
            with open(
                os.path.join(unfinished, f"digit-{held_out[0]:04}-is-{digits.target[held_out[0]]}.png"), "rb"
            ) as whole:
                content = whole.read()
            with open(os.path.join(unfinished, "broken.png"), "wb") as broken:
                broken.write(content[: len(content) // 2])
            try:
                os.rename(unfinished, path)
            except OSError:
                if not os.path.isdir(path):  # else another program was faster
                    raise
    return sorted(os.path.join(path, name) for name in os.listdir(path))
