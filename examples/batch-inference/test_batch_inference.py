"""Tests of the worker without a host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, List, Tuple
from unittest import mock

import digits
import joblib
import numpy as np
import pytest
import worker
from PIL import Image, ImageOps
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier
from snakepit_bridge import ItemError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: Any) -> Tuple[str, List[str]]:
    prepared = worker.prepare(str(tmp_path_factory.mktemp("cache") / "new"))
    return prepared["model_path"], prepared["batch_items"]


def classifiers() -> worker.Classifiers:
    service = worker.Classifiers()
    service.setup()
    return service


def drain(stream: Any) -> Tuple[List[Any], Any]:
    items = []
    while True:
        try:
            items.append(next(stream))
        except StopIteration as end:
            return items, end.value


def test_images_are_the_held_out_ones_exactly(prepared: Tuple[str, List[str]]) -> None:
    data, train, held_out = digits.split()
    assert len(held_out) == 599
    assert sorted(train + held_out) == list(range(1797))
    paths = {os.path.basename(path): path for path in prepared[1]}
    assert len(paths) == 600
    for i in held_out:
        pixels = worker.read(paths[f"digit-{i:04}-is-{data.target[i]}.png"], 8)
        assert np.abs(pixels - data.data[i]).max() < 16 / 255  # none is taken for one on a bright ground


def test_what_was_prepared_is_not_made_again(prepared: Tuple[str, List[str]]) -> None:
    with mock.patch.object(digits, "split", side_effect=AssertionError):
        again = worker.prepare(os.path.dirname(prepared[0]))
    assert (again["model_path"], again["batch_items"]) == prepared


def test_a_broken_image_fails_alone_and_the_model_is_loaded_once(prepared: Tuple[str, List[str]]) -> None:
    service = classifiers()
    broken = next(path for path in prepared[1] if path.endswith("broken.png"))
    paths = [prepared[1][5], broken, "nowhere.png", prepared[1][6]]
    with mock.patch.object(joblib, "load", wraps=joblib.load) as load:
        items, result = drain(service.batch_inference(prepared[0], paths))
        assert result == {"is_final": True, "processed": 2, "failed": 2, "loads": 1}
        again, result = drain(service.batch_inference(prepared[0], paths))
        assert result["loads"] == 0
        assert load.call_count == 1
    assert [isinstance(item, ItemError) for item in items] == [False, True, True, False]
    assert str(items[1].error) == f"{broken} is no image that can be read: image file is truncated"
    assert str(items[2].error) == "nowhere.png is no image that can be read: it is not a regular file"
    for item, path in ((items[0], paths[0]), (items[3], paths[3])):
        assert item["item"] == path
        assert item["prediction"] == path[-5]
        assert 50 < item["confidence"] <= 100
    assert [again[0], again[3]] == [items[0], items[3]]


def test_black_on_white(prepared: Tuple[str, List[str]], tmp_path: Path) -> None:
    with Image.open(prepared[1][7]) as image:
        ImageOps.invert(image).convert("RGB").resize((300, 300)).save(tmp_path / "own.bmp")
    original, own = worker.read(prepared[1][7], 8), worker.read(str(tmp_path / "own.bmp"), 8)
    assert np.abs(original - own).max() < 4


def test_models_that_are_of_no_use(tmp_path: Path) -> None:
    def saved(model: Any) -> str:
        joblib.dump(model, tmp_path / "model")
        return str(tmp_path / "model")

    numbers = np.arange(20.0).reshape(4, 5)
    with pytest.raises(
        ValueError, match="holds a LinearRegression; a trained scikit-learn classifier with predict_proba is needed"
    ):
        worker.load(saved(LinearRegression().fit(numbers, [1, 2, 3, 4])))
    with pytest.raises(ValueError, match="holds a DecisionTreeClassifier; a trained"):
        worker.load(saved(DecisionTreeClassifier()))
    with pytest.raises(ValueError, match="takes 5 features; a square image never has so many pixels"):
        worker.load(saved(DecisionTreeClassifier().fit(numbers, [1, 2, 3, 4])))
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty is no model that joblib can load"):
        worker.load(str(tmp_path / "empty"))
    with pytest.raises(OSError, match="the model nowhere cannot be read: No such file or directory"):
        worker.load("nowhere")
