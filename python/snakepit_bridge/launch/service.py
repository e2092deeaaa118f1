"""The service of a back end, for gRPC. It leases workers to hosts. ``launch.proto`` is its contract."""

from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import Any, Callable, Iterator, List, Optional, Protocol, Tuple

import grpc

from snakepit_bridge._errors import Unavailable
from snakepit_bridge.grpc.health import Health

from . import launch_pb2 as pb2
from .launch_pb2_grpc import add_LaunchServicer_to_server
from .room import Lost, NoRoom
from .seat import Ending, Event, Exited, Memory, Output, Report, Start, Started

__all__ = ["LeasedSeat", "Seats", "Service"]

OTHER_RPCS = 256
"""How many RPCs are served at once beside the leases. Each one holds a thread while it lasts."""

MIN_FRAME = 4096
"""The smallest limit of a frame's weight, in bytes."""

CERTIFICATE_BYTES = 32 << 10
"""The size of a host's certificate, at most. So it fits into the pipe to the worker."""

_OPTIONS = [
    ("grpc.so_reuseport", 0),  # otherwise two servers could share a port silently
    # A host that is gone without a word is noticed after the sum of these two.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Hosts may ping every 10 seconds. A timer may be early.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]


class LeasedSeat(Protocol):
    """Holds one worker. `snakepit_bridge.launch.seat.Seat` is one. Any thread may call the methods."""

    def events(self) -> Iterator[Event]:
        """Yields what happens, `Exited` last. After `close`, only that follows. It is called once.

        Raises:
            Lost: The machine of the worker is gone, or the program there that holds it.
            Exception: In place of the first event, what `Seats.take` raises.
        """

    def signal(self, kill: bool) -> None:
        """Sends SIGKILL or SIGTERM to the worker and its children. It returns at once."""

    def announce_end(self, reason: str) -> None:
        """Adds an `Ending` to the events. If there is no worker yet, the seat is given up. It returns at once."""

    def close(self) -> None:
        """Kills the worker and its children, and waits for their end. It may be called twice."""


class Seats(Protocol):
    """Makes seats. `snakepit_bridge.launch.room.Room` does. Any thread may call it."""

    def take(self, start: Start) -> LeasedSeat:
        """Starts a worker. It returns at once: what takes time is left to the seat's `events`.

        Raises:
            NoRoom: There is no room for another worker.
            OSError: The process could not be started. So does ValueError, and RuntimeError.
            Unavailable: A package is missing, for instance.
        """


class Service:
    """Serves the leases of one back end, and ``grpc.health.v1``.

    Args:
        seats: Makes the seats.
        workers: How many leases there may be at once.
        plaintext: The service speaks plain text, and so do its workers. Otherwise all speak TLS.
        held: Called with True when a host has begun to hold this back end, and with False when it holds it no more.
    """

    def __init__(
        self, seats: Seats, workers: int, plaintext: bool, held: Callable[[bool], None] = lambda held: None
    ) -> None:
        self._seats = seats
        self._held = held
        self._plaintext = plaintext
        self._changed = threading.Condition()  # guards what follows; notified when a lease has ended
        self._leases: List[LeasedSeat] = []
        self._ending = False
        self._health = Health(grpc, "snakepit.launch.v1.Launch")
        rpcs = workers + OTHER_RPCS
        self._server = grpc.server(
            ThreadPoolExecutor(rpcs, "snakepit-rpc"),  # it makes threads when they are needed
            handlers=[grpc.method_handlers_generic_handler("grpc.health.v1.Health", self._health.methods())],
            options=_OPTIONS,
            maximum_concurrent_rpcs=rpcs,
        )
        add_LaunchServicer_to_server(self, self._server)

    def start(self, address: str, credentials: Optional[grpc.ServerCredentials]) -> int:
        """Begins to serve.

        Args:
            address: Where to listen, as "HOST:PORT".
            credentials: The credentials for TLS, or None for plain text.

        Returns:
            The port, or 0 if grpcio does not listen there.
        """
        try:
            if credentials is not None:
                port = self._server.add_secure_port(address, credentials)
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError:  # older versions of grpcio return 0
            return 0
        if port:
            self._server.start()
            self._health.serve(True)
        return port

    def end(self) -> None:
        """Grants no more leases. Those that exist live on, and their hosts hear that they are about to end."""
        with self._changed:
            first, self._ending = not self._ending, True
            leases = list(self._leases)
        self._health.serve(False)
        for seat in leases if first else ():
            seat.announce_end("the back end is ending")

    def wait(self, timeout: float) -> bool:
        """Waits until there is no lease, at most so many seconds.

        Returns:
            Whether there is none.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._leases, timeout)

    @property
    def leases(self) -> int:
        """How many leases there are."""
        with self._changed:
            return len(self._leases)

    def signal(self, kill: bool) -> None:
        """Sends SIGKILL or SIGTERM to all workers. Hosts still hear how they end."""
        with self._changed:
            leases = list(self._leases)
        for seat in leases:
            seat.signal(kill)

    def close(self, timeout: float) -> None:
        """Kills all workers and ends all RPCs. It takes at most so many seconds."""
        until = monotonic() + timeout
        self.end()
        self.signal(kill=True)
        self.wait(timeout)
        self._health.end()
        left = max(0.0, until - monotonic())
        self._server.stop(left).wait(left)

    def Lease(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """Serves one lease. grpcio calls it in a thread of its own."""
        start = self._start(requests, context)
        try:
            yield from self._lease(start, requests, context)
        except _FAILURES as error:
            context.abort(*_status(error))

    def Hold(self, request: Any, context: Any) -> Iterator[Any]:
        """Tells whether a host is still there. grpcio calls it in a thread of its own."""
        ended = threading.Event()
        if context.add_callback(ended.set):
            self._held(True)
            try:
                yield pb2.HoldEvent()
                ended.wait()
            finally:
                self._held(False)

    def _lease(self, start: Start, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        seat = self._take(start, context)
        try:
            # The call may end at any moment. Then the seat's last event ends the loop.
            if not context.add_callback(partial(seat.signal, True)):
                return
            refused: List[str] = []
            threading.Thread(
                target=_pass_on, args=(requests, seat, refused), name="snakepit-signals", daemon=True
            ).start()
            started = False
            for event in seat.events():
                started = started or isinstance(event, Started)
                if isinstance(event, Exited) and not started:  # it was killed while it waited for room
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the back end is ending")
                if isinstance(event, Exited):
                    self._give_back(seat)  # before the host hears of it, because it may ask for the next one at once
                    if refused:
                        context.abort(grpc.StatusCode.INVALID_ARGUMENT, refused[0])
                yield _message(event)
        finally:
            self._give_back(seat)

    def _start(self, requests: Iterator[Any], context: Any) -> Start:
        """Returns the host's first message."""
        self._refuse_at_end(context)
        try:
            request = next(requests)
        except Exception:  # StopIteration if the host has ended its side, a bare Exception if the RPC has ended
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must have start, and there is none")
        if request.WhichOneof("request") != "start":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must have start")
        said = request.start
        start = Start(
            said.run_id,
            said.index,
            said.max_frame,
            said.host_token,
            said.worker_token,
            said.certificate,
            tuple(said.env),
            said.wait,
            said.watch_memory,
        )
        fault = _fault(start, self._plaintext)
        if fault:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, fault)
        return start

    def _take(self, start: Start, context: Any) -> LeasedSeat:
        seat = self._seats.take(start)
        with self._changed:
            if not self._ending:
                self._leases.append(seat)
                return seat
        seat.close()
        self._refuse_at_end(context)
        raise AssertionError("abort has returned")

    def _refuse_at_end(self, context: Any) -> None:
        if self._ending:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the back end is ending")

    def _give_back(self, seat: LeasedSeat) -> None:
        """Closes a seat and forgets it. It may be called twice."""
        seat.close()
        with self._changed:
            if seat in self._leases:
                self._leases.remove(seat)
                self._changed.notify_all()


# ValueError: the system can't represent a variable. RuntimeError: there are too many threads.
_FAILURES = (NoRoom, Lost, Unavailable, OSError, ValueError, RuntimeError)


def _status(error: Exception) -> Tuple[grpc.StatusCode, str]:
    """Returns the status of a call that ends with one of the failures."""
    if isinstance(error, NoRoom):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
    if isinstance(error, Lost):
        return grpc.StatusCode.ABORTED, str(error)
    if isinstance(error, Unavailable):
        return grpc.StatusCode.FAILED_PRECONDITION, f"{error}; {error.remedy}"
    return grpc.StatusCode.FAILED_PRECONDITION, f"the worker could not be started: {error}"


def _pass_on(requests: Iterator[Any], seat: LeasedSeat, refused: List[str]) -> None:
    """Passes the host's signals on until its side of the call ends. If it breaks the contract, the worker is killed."""
    try:
        for request in requests:
            if request.WhichOneof("request") == "signal" and request.signal == pb2.SIGNAL_TERMINATE:
                seat.signal(kill=False)
            elif request.WhichOneof("request") == "signal" and request.signal == pb2.SIGNAL_KILL:
                seat.signal(kill=True)
            else:
                refused.append("each message after the first must have a signal, terminate or kill")
                seat.signal(kill=True)
                return
    except Exception:  # the call has ended, and its callback has killed the worker
        pass


def _fault(start: Start, plaintext: bool) -> str:
    """Returns what is wrong with a start, or ""."""
    named = {"run_id": start.run_id, "host_token": start.host_token, "worker_token": start.worker_token}
    for name, value in named.items():
        if not value or "\0" in value:
            return f"{name} is empty or has a NUL"
    if start.max_frame < MIN_FRAME:
        return f"max_frame is {start.max_frame}, and the least is {MIN_FRAME}"
    for entry in start.env:
        if entry.find("=") < 1 or "\0" in entry:
            return f"env has the entry {entry.partition('=')[0]!r}, which is no KEY=value or has a NUL"
    if plaintext and start.certificate:
        return "certificate is set, but this back end and its workers speak plain text: dial it without TLS"
    if plaintext:
        return ""
    if not start.certificate:
        return "certificate is empty, but this back end and its workers speak TLS only"
    if len(start.certificate) > CERTIFICATE_BYTES:
        return f"certificate has {len(start.certificate)} bytes, and the most are {CERTIFICATE_BYTES}"
    try:
        ssl.PEM_cert_to_DER_cert(start.certificate.strip())
    except ValueError:
        return "certificate is no certificate in PEM"
    return ""


def _message(event: Event) -> Any:
    if isinstance(event, Started):
        return pb2.LeaseEvent(started=pb2.Started(host=event.host, pid=event.pid, certificate=event.certificate))
    if isinstance(event, Output):
        return pb2.LeaseEvent(output=event.data)
    if isinstance(event, Report):
        return pb2.LeaseEvent(report=event.data)
    if isinstance(event, Memory):
        return pb2.LeaseEvent(memory=event.size)
    if isinstance(event, Ending):
        return pb2.LeaseEvent(ending=pb2.Ending(reason=event.reason))
    return pb2.LeaseEvent(exited=pb2.Exited(code=event.code, signal=event.signal, oom=event.oom))
