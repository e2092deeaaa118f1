"""A worker that keeps many streams open at once."""

import asyncio

from snakepit_bridge import Worker

worker = Worker(concurrency=1000)


@worker.command
async def hold():
    """Sends one item and keeps the stream open."""
    yield 0
    await asyncio.sleep(3600)


if __name__ == "__main__":
    worker.run()
