"""The room of one machine: how many seats there may be, and which starts wait."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from host import PATIENCE

pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")

from snakepit_bridge.launch import room as module
from snakepit_bridge.launch.room import NoRoom, Room


class FakeSeat:
    """A worker that ends when the test says so."""

    def __init__(self, *args):
        self.ending = False
        self.ended = threading.Event()

    def wait(self, timeout):
        return self.ended.wait(timeout)


@pytest.fixture
def room(monkeypatch):
    monkeypatch.setattr(module, "Seat", FakeSeat)
    monkeypatch.setattr(module, "ENDING_SECONDS", PATIENCE)
    return Room(["w.py"], 2, "127.0.0.1")


def test_a_full_room_refuses_at_once(room):
    first = room.take(None)
    room.take(None)
    with pytest.raises(NoRoom, match="all 2 workers are leased"):
        room.take(None)
    first.ended.set()
    room.take(None)


def test_each_start_waits_for_a_worker_that_is_being_killed(room):
    first, second = room.take(None), room.take(None)
    first.ending = second.ending = True
    with ThreadPoolExecutor(2) as threads:
        starts = [threads.submit(room.take, None) for _ in range(2)]
        second.ended.set()  # not in the order in which they began
        first.ended.set()
        for start in starts:
            assert not start.result(PATIENCE).ending


def test_starts_go_on_at_once(room, monkeypatch):
    both = threading.Barrier(2, timeout=PATIENCE)

    class SlowSeat(FakeSeat):
        def __init__(self, *args):
            super().__init__()
            both.wait()

    monkeypatch.setattr(module, "Seat", SlowSeat)
    with ThreadPoolExecutor(2) as threads:
        for start in [threads.submit(room.take, None) for _ in range(2)]:
            start.result(PATIENCE)


def test_a_start_that_fails_takes_no_room(room, monkeypatch):
    def fail(*args):
        raise OSError("no more processes")

    with monkeypatch.context() as broken:
        broken.setattr(module, "Seat", fail)
        for _ in range(3):
            with pytest.raises(OSError, match="no more processes"):
                room.take(None)
    room.take(None)
    room.take(None)
