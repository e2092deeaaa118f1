"""A multi-layer perceptron in NumPy: layers with ReLU, and softmax with cross-entropy at the end.

All parameters are one flat array, so they are sent and averaged as one.
"""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

import numpy as np

MOMENTUM = 0.9


class MLP:
    """The shape of a network: the numbers of inputs, of units in each hidden layer, and of classes.

    The caller keeps the parameters.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = [int(size) for size in sizes]
        self.size = sum((inputs + 1) * units for inputs, units in zip(self.sizes, self.sizes[1:]))

    def initial(self, seed: int) -> Any:
        """Returns random parameters (He et al., 2015)."""
        random = np.random.default_rng(seed)
        parameters = np.zeros(self.size)
        for weights, _ in self.layers(parameters):
            weights[:] = random.normal(0, np.sqrt(2 / len(weights)), weights.shape)
        return parameters

    def layers(self, parameters: Any) -> List[Tuple[Any, Any]]:
        """Returns each layer's weights and biases, as views of the parameters."""
        views, start = [], 0
        for inputs, units in zip(self.sizes, self.sizes[1:]):
            middle, end = start + inputs * units, start + (inputs + 1) * units
            views.append((parameters[start:middle].reshape(inputs, units), parameters[middle:end]))
            start = end
        return views

    def forward(self, parameters: Any, x: Any) -> List[Any]:
        """Returns the input and the outputs of all layers. The last are the logarithms of the class probabilities."""
        outputs = [x]
        layers = self.layers(parameters)
        for weights, biases in layers[:-1]:
            outputs.append(np.maximum(outputs[-1] @ weights + biases, 0))
        weights, biases = layers[-1]
        scores = outputs[-1] @ weights + biases
        scores -= scores.max(axis=1, keepdims=True)
        outputs.append(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))
        return outputs

    def score(self, parameters: Any, x: Any, y: Any) -> Tuple[float, float]:
        """Returns the loss and the accuracy."""
        logs = self.forward(parameters, x)[-1]
        return float(-logs[np.arange(len(y)), y].mean()), float((logs.argmax(axis=1) == y).mean())

    def gradient(self, parameters: Any, x: Any, y: Any) -> Tuple[Any, float, int]:
        """Returns the gradient of the loss, the sum of the samples' losses, and the number of right ones."""
        outputs = self.forward(parameters, x)
        logs, rows = outputs[-1], np.arange(len(y))
        gradient = np.empty_like(parameters)
        back = np.exp(logs)
        back[rows, y] -= 1
        back /= len(y)
        pairs = list(zip(self.layers(parameters), self.layers(gradient), outputs))
        for (weights, _), (to_weights, to_biases), inputs in reversed(pairs):
            to_weights[:] = inputs.T @ back
            to_biases[:] = back.sum(axis=0)
            back = (back @ weights.T) * (inputs > 0)
        return gradient, float(-logs[rows, y].sum()), int((logs.argmax(axis=1) == y).sum())
