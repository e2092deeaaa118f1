"""The sessions of a worker."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Set

from ._unpatched import RLock, monotonic

CLIENT_SESSIONS = 1000
"""How many sessions are kept that only clients other than the host have named."""

CLIENT_IDLE = 1800.0
"""How many seconds such a session is kept unused."""


class Session:
    """The data that the calls of one session share.

    Attributes:
        id: The session's name, as the host chose it.
        state: A dict for your data. It lives until the host forgets the session, or this process ends. It can survive
            the process: see `Worker.on_snapshot`. If the worker runs several calls at once, calls of one session may
            run at once, too.
    """

    __slots__ = ("__weakref__", "id", "state")

    def __init__(self, id: str) -> None:
        self.id = id
        self.state: Dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Session({self.id!r})"


class Sessions:
    """The sessions of a worker.

    The host forgets its own sessions. Other clients forget none. Of the sessions that only they have named, the most
    recently used ones are kept. A session that a call uses is never dropped.

    Args:
        in_use: Returns the names of the sessions that calls of other clients use now.
    """

    def __init__(self, in_use: Callable[[], Set[str]]) -> None:
        self._in_use = in_use
        self._lock: Any = RLock()  # guards what follows; code that interrupts its owner may take it, too
        self._sessions: Dict[str, Session] = {}
        self._client_named: Dict[str, float] = {}
        """When each session that only clients have named was last used, the oldest first."""

    def get(self, name: str, by_client: bool) -> Session:
        """Returns the session of that name, or a new one. by_client says that a client named it, not the host."""
        with self._lock:
            dropped: List[Session] = []  # released without the lock: finalizers of their state may take long
            session = self._sessions.get(name)
            known = session is not None
            if session is None:  # a signal handler may still make one first
                session = self._sessions.setdefault(name, Session(name))
            used = self._client_named.pop(name, None)
            if by_client and (used is not None or not known):
                self._client_named[name] = monotonic()  # at the end of the dict
                dropped = self._drop_oldest()
        del dropped
        return session

    def put(self, session: Session) -> None:
        """Makes a session of the host the one of its name."""
        with self._lock:
            self._client_named.pop(session.id, None)
            replaced = self._sessions.get(session.id)  # released without the lock
            self._sessions[session.id] = session
        del replaced

    def forget(self, name: str) -> bool:
        """Drops a session. Returns whether there was one."""
        with self._lock:
            self._client_named.pop(name, None)
            dropped = self._sessions.pop(name, None)
        return dropped is not None

    def _drop_oldest(self) -> List[Session]:
        before = monotonic() - CLIENT_IDLE
        named = self._client_named
        if len(named) <= CLIENT_SESSIONS and min(named.values(), default=before) > before:
            return []
        in_use = self._in_use()
        dropped: List[Session] = []
        for name in list(named):
            if len(named) <= CLIENT_SESSIONS and named.get(name, before) > before:
                break
            if name not in in_use and named.pop(name, None) is not None:
                session = self._sessions.pop(name, None)
                if session is not None:
                    dropped.append(session)
        return dropped
