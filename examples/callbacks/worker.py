"""The worker of the callbacks example. Run it by hand to see its command."""

from __future__ import annotations

from typing import Any, Dict

from snakepit_bridge import Context, RemoteError, Worker

worker = Worker()


@worker.command
def score_orders(ctx: Context, minimum: float) -> Dict[str, Any]:
    """Scores the orders in the host's database by how unusual the amount is for the customer.

    Args:
        ctx: The call. It calls the host's functions orders, customer and progress.
        minimum: The least amount of the orders to score.

    Returns:
        The number of scored orders, the order with the highest score, and why the other orders have none.
    """
    scores, failures = {}, []
    for order in ctx.stream("orders", minimum=minimum):  # fetched on demand, so there may be millions
        try:
            customer = ctx.call("customer", order["customer"])
        except RemoteError as error:  # the error that the Go function returned
            failures.append(f"order {order['id']}: {error.message}")
            continue
        score = order["amount"] / customer["usual_amount"]
        scores[order["id"]] = score
        ctx.call("progress", order=order["id"], name=customer["name"], score=score)
    return {"scored": len(scores), "highest": max(scores, key=scores.__getitem__, default=None), "failures": failures}


if __name__ == "__main__":
    worker.run()
