"""The standard service grpc.health.v1.Health, for one service of a server.

The messages are encoded by hand. A generated module could clash with one of the program's, and the package that has one
requires a newer protobuf.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional

from snakepit_bridge._unpatched import RLock, SimpleQueue

__all__ = ["Health"]

_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


class Health:
    """Tells clients whether a server serves. At first it does not.

    Args:
        grpc: The module grpc.
        service: The full name of the service. The empty name of the whole server means the same.
    """

    def __init__(self, grpc: Any, service: str) -> None:
        self._grpc = grpc
        self._service = service
        self._requests = (b"", b"\n\x00", b"\n" + bytes([len(service)]) + service.encode())
        # Guards what follows. It is reentrant because a finalizer may end a worker's service while it is held.
        self._lock = RLock()
        self._status = _NOT_SERVING
        self._watchers: List[SimpleQueue[Optional[bytes]]] = []

    def methods(self) -> Dict[str, Any]:
        """Returns the handlers of the service."""
        return {
            "Check": self._grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": self._grpc.unary_stream_rpc_method_handler(self._watch),
        }

    def serve(self, serving: bool) -> None:
        """Says from now on whether the server serves."""
        status = _SERVING if serving else _NOT_SERVING
        with self._lock:
            if status == self._status:
                return
            self._status = status
            for changes in self._watchers:
                changes.put(self._status)

    def end(self) -> None:
        """Ends the RPCs of those who watch."""
        with self._lock:
            for changes in self._watchers:
                changes.put(None)

    def _check(self, request: bytes, context: Any) -> bytes:
        if request not in self._requests:
            context.abort(self._grpc.StatusCode.NOT_FOUND, f"unknown service; there is {self._service}")
        return self._status

    def _watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        changes: SimpleQueue[Optional[bytes]] = SimpleQueue()
        if not context.add_callback(lambda: changes.put(None)):
            return
        with self._lock:
            if request in self._requests:
                changes.put(self._status)
                self._watchers.append(changes)
            else:
                changes.put(_SERVICE_UNKNOWN)
        try:
            while True:
                status = changes.get()
                if status is None:
                    return
                yield status
        finally:
            with self._lock:
                if changes in self._watchers:
                    self._watchers.remove(changes)
