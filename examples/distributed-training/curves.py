"""A picture of a training: loss and accuracy by epoch."""

from __future__ import annotations

from typing import Any, Dict, List

import matplotlib

matplotlib.use("Agg")  # draws files, without a display

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator


def draw(history: List[Dict[str, Any]], best: int, path: str) -> None:
    """Draws the history of a training as PNG, with the best epoch marked."""
    epochs = [row["epoch"] for row in history]
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for ax, (kind, title) in zip(axes, (("loss", "Loss"), ("acc", "Accuracy"))):
        for part, label in (("train", "training"), ("val", "validation")):
            ax.plot(
                epochs, [row[f"{part}_{kind}"] for row in history], marker="." if len(history) < 30 else "", label=label
            )
        ax.axvline(best, color="grey", linestyle=":", label=f"best epoch: {best}")
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)
