"""The worker of the ray-inference example. It runs on the nodes of a Ray cluster."""

from __future__ import annotations

import os
import socket
from typing import Any, Dict, Iterator, List

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from snakepit_bridge import Worker, command

worker = Worker()


@worker.service
class Digits:
    """A classifier for scikit-learn's handwritten digits. Each worker trains it once, before its first call."""

    def setup(self) -> None:
        digits = load_digits()
        train, _, answers, _ = train_test_split(digits.data, digits.target, test_size=0.5, random_state=0)
        self.model = SVC(gamma=0.001).fit(train, answers)

    @command
    def classify(self, images: np.ndarray) -> Iterator[int]:
        """Recognises digits.

        Args:
            images: One image a row: 64 grey values from 0 (white) to 16.

        Yields:
            The digit of each image.
        """
        for image in images:
            yield int(self.model.predict([image])[0])


@worker.command
def held_out() -> Dict[str, Any]:
    """Returns the images that no worker was trained on, and what they show."""
    digits = load_digits()
    _, images, _, answers = train_test_split(digits.data, digits.target, test_size=0.5, random_state=0)
    return {"images": images, "answers": answers}


@worker.command
def place() -> List[str]:
    """Returns the node of the cluster and the machine that this worker runs on."""
    return [os.environ.get("SNAKEPIT_NODE", ""), socket.gethostname()]


worker.run()
