"""The worker of the sessions example: a straight line fitted by gradient descent, one for each session."""

from __future__ import annotations

from typing import Any, Generator, List, TypedDict

from snakepit_bridge import Worker

worker = Worker()


class Epoch(TypedDict):
    """An item of train_model."""

    epoch: int  # counted over all calls of the session
    loss: float  # the mean squared error before its step


class Model(TypedDict):
    """The state of a session: a straight line."""

    slope: float
    intercept: float
    epoch: int
    learning_rate: float


@worker.command
def initialize_model(ctx: Any, learning_rate: float) -> Model:
    """Begins a model, y = slope·x + intercept, in the call's session, and returns it."""
    ctx.session.state["model"] = {"slope": 0.0, "intercept": 0.0, "epoch": 0, "learning_rate": learning_rate}
    return ctx.session.state["model"]


@worker.command
def train_model(ctx: Any, points: List[List[float]], epochs: int) -> Generator[Epoch, None, Model]:
    """Trains the session's model from where the last call left it.

    Args:
        ctx: The call.
        points: Pairs of x and y.
        epochs: How often to go through them.

    Returns:
        The model.
    """
    model = ctx.session.state.get("model")
    if model is None:
        raise LookupError(f"session {ctx.session.id} has no model; call initialize_model in it first")
    for _ in range(epochs):
        errors = [model["slope"] * x + model["intercept"] - y for x, y in points]
        step = 2 * model["learning_rate"] / len(points)
        model["slope"] -= step * sum(error * x for error, (x, _) in zip(errors, points))
        model["intercept"] -= step * sum(errors)
        model["epoch"] += 1
        yield {"epoch": model["epoch"], "loss": sum(error**2 for error in errors) / len(points)}
    return model


if __name__ == "__main__":
    worker.run()
