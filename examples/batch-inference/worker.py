"""The worker of the batch-inference example."""

from __future__ import annotations

import math
import os
from typing import Any, Dict, Generator, List, Union

import digits
import joblib
import numpy as np
from PIL import Image, ImageOps
from snakepit_bridge import ItemError, Worker, command

worker = Worker()


@worker.service
class Classifiers:
    """Classifiers. The first call that names one loads it. It stays for as long as the worker lives."""

    def setup(self) -> None:
        self.loaded: Dict[str, Any] = {}

    @command
    def batch_inference(
        self, model_path: str, batch_items: List[str]
    ) -> Generator[Union[Dict[str, Any], ItemError], None, Dict[str, Any]]:
        """Recognises what images show.

        Args:
            model_path: A scikit-learn classifier with probabilities, as joblib saves it. Its features are the grey
                values of a square image, row by row, from 0 (black) to 16.
            batch_items: The image files.

        Yields:
            item, prediction and confidence in percent, for each image as soon as it is done. An unreadable image has
            an ItemError instead.

        Returns:
            is_final, the numbers of processed and of failed images, and how often this call loaded a model.
        """
        loads = 0
        if model_path not in self.loaded:
            self.loaded[model_path] = load(model_path)
            loads = 1
        model = self.loaded[model_path]
        side = math.isqrt(model.n_features_in_)
        failed = 0
        for item in batch_items:
            try:
                pixels = read(item, side)
            except Exception as error:  # a broken image must not affect the others
                failed += 1
                yield ItemError(f"{item} is no image that can be read: {error}")
                continue
            probabilities = model.predict_proba([pixels])[0]
            best = np.argmax(probabilities)
            yield {
                "item": item,
                "prediction": str(model.classes_[best]),
                "confidence": round(100 * float(probabilities[best]), 1),
            }
        return {"is_final": True, "processed": len(batch_items) - failed, "failed": failed, "loads": loads}


@worker.command
def prepare(directory: str) -> Dict[str, Any]:
    """Returns the arguments of batch_inference for the digits.

    Trains the model and writes the images first, unless they exist.
    """
    return {"model_path": digits.model(directory), "batch_items": digits.images(directory)}


def load(path: str) -> Any:
    """Loads a model. If the model is unusable, raises an error that says why."""
    try:
        model = joblib.load(path)
    except OSError as error:
        raise OSError(f"the model {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise ValueError(f"{path} is no model that joblib can load ({error!r}); joblib.dump saves one") from None
    if not hasattr(model, "predict_proba") or not hasattr(model, "classes_"):
        raise ValueError(
            f"{path} holds a {type(model).__name__}; a trained scikit-learn classifier with predict_proba is needed"
        )
    if math.isqrt(model.n_features_in_) ** 2 != model.n_features_in_:
        raise ValueError(
            f"the model {path} takes {model.n_features_in_} features; a square image never has so many pixels"
        )
    return model


def read(path: str, side: int) -> Any:
    """Returns the features of an image: side x side grey values from 0 to 16. A bright ground is inverted."""
    if not os.path.isfile(path):
        raise ValueError("it is not a regular file")
    with Image.open(path) as file:
        image = file.convert("L")
    pixels = image.resize((side, side), Image.Resampling.BOX)
    corners = [pixels.getpixel((x, y)) for x in (0, side - 1) for y in (0, side - 1)]
    if min(corners) > 127:
        pixels = ImageOps.invert(pixels)
    return np.asarray(pixels, float).reshape(-1) * (16 / 255)


if __name__ == "__main__":
    worker.run()
