"""The sessions of a worker. A signal handler or a finalizer may ask for one while another one is looked up."""

import copy
import pickle
import threading

import pytest
from host import PATIENCE

from snakepit_bridge import _sessions as module
from snakepit_bridge._sessions import Session, Sessions


def test_a_lookup_inside_of_a_lookup_gets_the_same_session(monkeypatch):
    sessions, inner = Sessions(set), []

    class Interrupted(Session):
        def __init__(self, id):
            super().__init__(id)
            if not inner:  # here a signal handler runs
                inner.append(None)
                inner[0] = sessions.get(id, False)

    monkeypatch.setattr(module, "Session", Interrupted)
    outer = sessions.get("s", False)
    assert inner == [outer]
    assert sessions.get("s", False) is outer


def test_a_session_is_made_once(monkeypatch):
    sessions, made = Sessions(set), []
    monkeypatch.setattr(module, "Session", lambda id: made.append(id) or Session(id))
    assert sessions.get("s", False) is sessions.get("s", True)
    assert made == ["s"]


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda session: pickle.loads(pickle.dumps(session))])
def test_a_session_can_be_copied(copied):
    session = Session("s")
    session.state["list"] = [1]
    other = copied(session)
    assert (type(other), other.id, other.state) == (Session, "s", {"list": [1]})
    assert other is not session


@pytest.mark.parametrize("does", ["get", "forget"])
def test_client_sessions_that_change_while_they_are_dropped(monkeypatch, does):
    monkeypatch.setattr(module, "CLIENT_SESSIONS", 3)
    kept = set()

    def in_use():
        for n in range(8):
            sessions.get(f"s{n}", False) if does == "get" else sessions.forget(f"s{n}")
        return kept

    sessions = Sessions(in_use)
    for n in range(10):
        kept.add(sessions.get(f"s{n}", True).id)
    assert sessions.get("s9", False) is sessions.get("s9", True)
    assert set(sessions._client_named) <= set(sessions._sessions)


@pytest.mark.parametrize("by_client", [False, True], ids=["forget", "the oldest"])
def test_finalizers_of_a_state_hold_up_nobody(monkeypatch, by_client):
    monkeypatch.setattr(module, "CLIENT_SESSIONS", 1)
    sessions, found = Sessions(set), []

    class State:
        def __del__(self):
            other = threading.Thread(target=lambda: found.append(sessions.get("other", False)))
            other.start()
            other.join(PATIENCE)

    sessions.get("s", by_client).state["x"] = State()
    if by_client:
        sessions.get("t", True)
    else:
        assert sessions.forget("s")
    assert [session.id for session in found] == ["other"]


def test_client_sessions_are_dropped_the_oldest_first(monkeypatch):
    monkeypatch.setattr(module, "CLIENT_SESSIONS", 3)
    sessions = Sessions(set)
    for name in "abcadea":
        sessions.get(name, True)
    assert list(sessions._client_named) == ["d", "e", "a"]
    assert list(sessions._sessions) == ["a", "d", "e"]


def test_a_forgotten_session_does_not_come_back(serve):
    """A call that still runs keeps its own session. Neither what it sets nor its snapshot reaches the next one."""
    host = serve(
        """
        import threading
        go, taken = threading.Event(), []

        @worker.on_snapshot
        def snapshot(session):
            taken.append(dict(session.state))
            return session.state

        @worker.command
        def slow(ctx):
            ctx.session.state["before"] = 1
            yield "begun"
            go.wait()
            ctx.session.state["after"] = 1

        @worker.command
        def proceed(): go.set()

        @worker.command
        def look(ctx): return [dict(ctx.session.state), taken]
        """,
        "concurrency=2",
    )
    call = host.open("slow", session="s", flags=8 | 1)  # the host keeps the state
    host.wait_for("item", call)
    assert host.call("snakepit.forget", session="s") is True
    host.call("proceed")
    host.answer(call)
    assert host.call("look", session="s") == [{}, [{"before": 1, "after": 1}]]


def test_signal_handlers_that_ask_for_a_session(serve):
    host = serve(
        """
        import os, signal
        @worker.command
        def busy(ctx):
            seen = []
            def ask(*_): seen.append(ctx.session)
            signal.signal(signal.SIGUSR1, ask)
            if not hasattr(signal, "setitimer"): return True
            signal.signal(signal.SIGALRM, ask)
            signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
            while len(seen) < 300: ctx.session
            signal.setitimer(signal.ITIMER_REAL, 0)
            return all(session is ctx.session for session in seen)
        """
    )
    assert host.call("busy", session="s") is True
