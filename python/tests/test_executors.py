"""The main thread reads between calls, and another thread during long ones."""

import json
import queue
import threading
import time

import pytest

from snakepit_bridge import _executors
from snakepit_bridge._runner import Runner
from snakepit_bridge.transport import HELLO, PING, PONG, Launch, Transport

HELLO_OF_HOST = {"version": 1, "codec": "json", "max_frame": 1 << 20, "window": {"items": 9, "bytes": 9}}


class Queues(Transport):
    """Frames of the host come from one queue, and those of the worker go to another."""

    def __init__(self):
        self.sent, self.written, self.readers = queue.Queue(), queue.Queue(), queue.Queue()
        self.sent.put([{"kind": HELLO, "body": json.dumps(HELLO_OF_HOST).encode()}])

    def read(self):
        self.readers.put(threading.get_ident())
        return self.sent.get()

    def write(self, frames):
        for frame in frames:
            self.written.put(frame)

    def close(self):
        pass

    def ping(self, number):
        """Sends a ping and waits for its pong."""
        self.sent.put([{"kind": PING, "id": number}])
        while True:
            frame = self.written.get(timeout=20)
            if frame["kind"] == PONG:
                assert frame["id"] == number
                return


class Wakeups:
    """The housekeeper's queue. An entry in `sleeps` says that it has begun to wait."""

    def __init__(self):
        self.queue, self.sleeps = queue.SimpleQueue(), queue.SimpleQueue()
        self.put = self.queue.put

    def get(self):
        self.sleeps.put(None)
        return self.queue.get()


@pytest.fixture
def leader():
    """A leader whose main thread is this one. It has not begun to serve, so the tests say what it does."""
    runner = Runner(Queues(), {}, 1, 0, Launch({}))
    leader = runner.executor = _executors.Leader(runner)
    runner.housekeeper._wakeups = Wakeups()
    runner.greet()
    thread = threading.Thread(target=leader._follow)
    thread.start()
    yield leader
    runner.ended = True
    leader.busy = False
    leader.stop()
    runner.transport.sent.put([])
    thread.join()


def begin_batch(leader):
    leader.batch += 1
    leader.since = time.monotonic()
    leader.busy = True
    leader.runner.housekeeper.wake()


def test_a_long_batch_is_read_beside(leader):
    begin_batch(leader)
    for number in range(3):
        leader.runner.transport.ping(number)


def test_each_long_batch_is_read_beside(leader):
    begin_batch(leader)
    leader.runner.transport.ping(1)
    for _ in range(3):  # the hello, the ping, and now the follower reads again
        leader.runner.transport.readers.get(timeout=20)
    # The main thread has ended this batch and begun the next one before the follower has seen that.
    begin_batch(leader)
    leader.runner.housekeeper._wakeups.sleeps.get(timeout=20)  # as long as somebody reads
    for number in range(2, 5):
        leader.runner.transport.ping(number)


def test_the_main_thread_learns_that_it_may_read_again(leader):
    begin_batch(leader)
    leader.runner.transport.ping(1)
    leader.busy = False
    leader.runner.transport.sent.put([{"kind": PING, "id": 2}])
    leader.released.acquire()
    assert leader.reading.acquire(False)


def test_no_batch_and_no_work(leader):
    assert not leader.tick()
    leader.batch, leader.busy = 1, True  # without a housekeeper that ticks
    assert leader.tick()
    assert leader.tick()  # asks the follower
    leader.runner.transport.ping(1)
    assert not leader.tick()  # the follower reads


def test_arguments_are_released_when_their_call_has_ended(each_executor):
    host = each_executor("""
        from queue import SimpleQueue
        from threading import Barrier
        from snakepit_bridge._calls import Call
        released = SimpleQueue()
        Call.__del__ = lambda call: released.put(call.name)
        threads = Barrier(worker.concurrency)
        @worker.command
        def take(x): threads.wait(20)  # so that each thread takes one call
        @worker.command
        def wait_for_releases(n): return [released.get(timeout=20) for _ in range(n)]
    """)
    n = 2 if "pool" in host.executor else 1
    for id in [host.open("take", "x") for _ in range(n)]:
        assert host.answer(id)["kind"] == "end"
    assert host.call("wait_for_releases", n) == ["take"] * n
