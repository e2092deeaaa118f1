"""Tests of the worker without a host."""

from __future__ import annotations

from pathlib import Path

import pytest
from snakepit_bridge import RemoteError, testing

LINE = [[-1.0, 1.0], [0.0, 3.0], [1.0, 5.0]]  # y = 2x + 3


def test_each_session_has_a_model_of_its_own() -> None:
    with testing.load(Path(__file__).with_name("worker.py")) as worker:
        ann, bob = worker.session("ann"), worker.session("bob")
        for session in (ann, bob):
            session.call("initialize_model", learning_rate=0.25)
        stream = ann.stream("train_model", points=LINE, epochs=30)
        losses = [chunk["loss"] for chunk in stream]
        assert losses == sorted(losses, reverse=True)
        assert stream.result["slope"] == pytest.approx(2, abs=1e-4)
        assert stream.result["intercept"] == pytest.approx(3, abs=1e-4)
        assert [chunk["epoch"] for chunk in ann.stream("train_model", points=LINE, epochs=2)] == [31, 32]
        assert [chunk["epoch"] for chunk in bob.stream("train_model", points=LINE, epochs=1)] == [1]


def test_training_needs_a_model() -> None:
    refusal = pytest.raises(RemoteError, match="session ann has no model; call initialize_model in it first")
    with testing.load(Path(__file__).with_name("worker.py")) as worker, refusal:
        list(worker.session("ann").stream("train_model", points=LINE, epochs=1))
