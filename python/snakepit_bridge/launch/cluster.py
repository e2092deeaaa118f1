"""Makes the seats of a Ray cluster. An actor holds each worker, on the node that Ray chooses."""

from __future__ import annotations

import re
import signal
import threading
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from snakepit_bridge._errors import Unavailable

from .holder import Holder, Place
from .room import Lost, NoRoom
from .seat import Event, Exited, Start, Started

__all__ = ["Cluster", "Need"]

ROOM_SECONDS = 2.0
"""How long a cluster may take to find room. It reserves room within milliseconds, but hears of freed room later."""

SILENT_SECONDS = 30.0
"""How long it may take if a node seems to have room. That node may be gone, which Ray takes this long to notice."""

KILL_SECONDS = 1.0
"""How long a killed worker's exit may take to arrive. Then the actor is killed."""

WAIT_SECONDS = 1e9
"""How long a host may wait for room. Its call ends earlier."""

EVENTS = 8
"""How many events Ray keeps for the service. Then the worker's output waits."""

REASON_CHARS = 400
"""How much of Ray's reason is passed on."""

_HEAD = re.compile(r"The actor died unexpectedly|(class_name|actor_id|pid|name|namespace|ip): ")
"""Matches the lines of an error that say nothing new."""


@dataclass(frozen=True)
class Need:
    """What Ray reserves for one worker."""

    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1.0})  # Ray's names and amounts
    labels: Mapping[str, str] = field(default_factory=dict)  # the labels of its node
    spread: bool = False  # prefer the node with the fewest workers


class Cluster:
    """Makes seats that hold workers of one program. Any thread may call the methods.

    Args:
        program: The worker file and its arguments.
        workers: How many workers there may be at once.
        need: What Ray reserves for each.
        address: The IP address that they listen on; "": that of their node.
        ports: The ports that they may choose from, such as "50051-50151"; "": any.
    """

    def __init__(self, program: Sequence[str], workers: int, need: Need, address: str = "", ports: str = "") -> None:
        self._program = program
        self._workers = workers
        self._need = need
        self._address = address
        self._ports = ports
        amounts = dict(need.resources)
        self._options = {
            "num_cpus": amounts.pop("CPU", 0),
            "num_gpus": amounts.pop("GPU", 0),
            "memory": amounts.pop("memory", None),
            "resources": amounts,
            "max_concurrency": 2,
        }
        self._holder = ray.remote(Holder)
        self._changed = threading.Condition()  # guards _seats; notified when a seat is given back or killed
        self._seats: List[_Seat] = []

    def take(self, start: Start) -> _Seat:
        """Returns a seat. Its first event comes when there is a worker.

        Its `events` may raise:
            NoRoom: All workers are leased, or the cluster has no room. If the host waits for room, it waits instead.
            RuntimeError: The process could not be started.
            Unavailable: A package is missing on the node.
            Lost: The node or the actor is gone.
        """
        return _Seat(self, start)

    def _enter(self, seat: _Seat) -> bool:
        """Counts a seat. Returns False if it was killed before there was room."""
        with self._changed:
            # A host that ends a lease may ask for the next one at once.
            patience = WAIT_SECONDS if seat.start.wait else ROOM_SECONDS if any(s.killed for s in self._seats) else 0
            self._changed.wait_for(lambda: seat.killed or len(self._seats) < self._workers, patience)
            if not seat.killed and len(self._seats) >= self._workers:
                raise NoRoom(f"all {self._workers} workers are leased")
            if not seat.killed:
                self._seats.append(seat)
            return not seat.killed

    def _leave(self, seat: _Seat) -> None:
        with self._changed:
            if seat in self._seats:
                self._seats.remove(seat)
            self._changed.notify_all()

    def _reserve(self, seat: _Seat) -> Any:
        """Asks Ray for room. Returns the placement group, which may not be placed yet."""
        more: Dict[str, Any] = {}
        if self._need.labels:
            more["bundle_label_selector"] = [dict(self._need.labels)]
        if self._need.spread:  # Ray spreads the bundles of one group, but has no word for the groups of a job
            more["_soft_target_node_id"] = self._emptiest(seat)
        return placement_group([dict(self._need.resources)], strategy="STRICT_PACK", **more)

    def _emptiest(self, seat: _Seat) -> Optional[str]:
        """Returns the node with the fewest of our workers, or None if no node is large enough for one."""
        nodes = [node["NodeID"] for node in _nodes() if _fits(self._need.resources, node["Resources"])]
        with self._changed:  # the choices of several starts depend on each other
            taken = [other.node for other in self._seats if other is not seat]
            seat.node = min(nodes, key=taken.count, default="")
        return seat.node or None

    def _hold(self, group: Any, start: Start) -> Any:
        """Makes the actor in a placement group. Returns it, and its events."""
        inside = PlacementGroupSchedulingStrategy(group)
        actor = self._holder.options(scheduling_strategy=inside, **self._options).remote()
        events = actor.events.options(num_returns="streaming", _generator_backpressure_num_objects=EVENTS)
        return actor, events.remote(list(self._program), self._address, self._ports, start)

    def _seems_to_have_room(self) -> bool:
        """Reports whether Ray lists a node with enough free resources. Labels are not compared."""
        if self._need.labels:
            return False
        free = ray._private.state.available_resources_per_node()  # the public function only has the sum
        return any(_fits(self._need.resources, left) for left in free.values())

    def _no_room(self) -> NoRoom:
        """Says what a worker needs and what there is."""
        need = self._need.resources
        free, total = ray.available_resources(), ray.cluster_resources()
        shown = [name for name in dict.fromkeys(("CPU", "GPU", *need)) if name in need or name in total]
        text = f"the cluster has no room: a worker needs {_amounts(need)}"
        if self._need.labels:
            text += f" on a node with the labels {_labels(self._need.labels)}"
        text += f"; available now: {_amounts({name: free.get(name, 0) for name in shown})}"
        text += f", of {_amounts({name: total.get(name, 0) for name in shown})} in all"
        for name, amount in need.items():
            most = max((node["Resources"].get(name, 0) for node in _nodes()), default=0)
            if most < amount:
                text += f"; no node has more than {_amounts({name: most})}" if most else f"; no node has any {name}"
        return NoRoom(text)


class _Seat:
    """An actor that holds a worker, or the wait for room for one. Any thread may call the methods.

    Attributes:
        start: What the host says.
        killed: Whether it was killed.
        node: Ray's id of its node, or of that which was asked for; "": not known yet.
    """

    def __init__(self, cluster: Cluster, start: Start) -> None:
        self.start = start
        self.killed = False
        self.node = ""
        self._cluster = cluster
        self._lock = threading.Lock()  # guards what follows, and killed
        self._group: Any = None
        self._actor: Any = None
        self._started = False
        self._timer: Optional[threading.Timer] = None

    def events(self) -> Iterator[Event]:
        """Yields what happens: `Started`, any number of `Output`, one `Report` among them, and at last `Exited`.

        After `close`, only `Exited` follows. It may be called once.
        """
        try:
            events = self._place()
            if events is None:
                yield Exited(-1, int(signal.SIGKILL), False)
            else:
                yield from self._pass_on(events)
        finally:
            self.close()

    def signal(self, kill: bool) -> None:
        """Sends SIGKILL or SIGTERM to the worker and its children, or ends the wait for room. It returns at once."""
        with self._lock:
            first = kill and not self.killed
            self.killed = self.killed or kill
            actor, group, started = self._actor, self._group, self._started
            if started:
                actor.signal.remote(kill)
                if first:
                    self._timer = threading.Timer(KILL_SECONDS, _kill, [actor])
                    self._timer.daemon = True
                    self._timer.start()
        if kill and not started:
            if actor is not None:
                _kill(actor)  # the end of its group does not end an actor that Ray is still making
            if group is not None:
                remove_placement_group(group)  # that ends the wait for it
            with self._cluster._changed:
                self._cluster._changed.notify_all()

    def announce_end(self, reason: str) -> None:
        """Adds an `Ending` to the events, or ends the wait for room. It returns at once."""
        with self._lock:
            if self._started:
                self._actor.announce_end.remote(reason)
                return
        self.signal(kill=True)

    def close(self) -> None:
        """Kills the actor, the worker and its children, and gives the room back. It may be called twice."""
        with self._lock:
            self.killed = True
            actor, group, timer = self._actor, self._group, self._timer
            self._actor = self._group = self._timer = None
            self._started = False
        if timer is not None:
            timer.cancel()
        if actor is not None:
            _kill(actor)
        if group is not None:
            remove_placement_group(group)
        self._cluster._leave(self)

    def _place(self) -> Any:
        """Waits for room, and makes the actor there. Returns its events, or None if the seat was killed before."""
        if not self._cluster._enter(self):
            return None
        group = self._cluster._reserve(self)
        with self._lock:
            self._group = group
        ready = False
        if not self.killed:
            try:
                ready = group.wait(WAIT_SECONDS if self.start.wait else ROOM_SECONDS)
                until = monotonic() + SILENT_SECONDS
                while not ready and self._cluster._seems_to_have_room() and monotonic() < until:
                    ready = group.wait(ROOM_SECONDS)
            except Exception:  # the group was removed
                if not self.killed:
                    raise
        if not ready and not self.killed:
            raise self._cluster._no_room()
        with self._lock:
            if self.killed:
                return None
            self._actor, events = self._cluster._hold(group, self.start)
            return events

    def _pass_on(self, events: Any) -> Iterator[Event]:
        place: Optional[Place] = None
        try:
            for reference in events:
                event = ray.get(reference)
                if isinstance(event, Place):
                    place = event
                    with self._lock:
                        self.node, self._started = event.node, self._actor is not None
                elif isinstance(event, Started):
                    yield event._replace(host=str(place))
                else:
                    yield event
                    if isinstance(event, Exited):
                        return
        except RayTaskError as error:
            if isinstance(error.cause, Unavailable):
                raise error.cause from error
            raise RuntimeError(str(error.cause)) from error
        except RayError as error:
            if self.killed:
                yield Exited(-1, int(signal.SIGKILL), False)
            elif isinstance(error, OutOfMemoryError) or "running low on memory" in str(error):
                yield Exited(-1, int(signal.SIGKILL), True)  # Ray has killed the actor, and the kernel its worker
            else:
                raise _loss(place, error) from error


def _kill(actor: Any) -> None:
    try:
        ray.kill(actor)
    except Exception:  # the connection to the cluster has ended, and with it the actor
        pass


def _loss(place: Optional[Place], error: RayError) -> Exception:
    """Returns what to say when Ray has no more events."""
    reason = _reason(error)
    if isinstance(error, RuntimeEnvSetupError) or "failed to import on the worker" in str(error):
        where = "a node" if place is None else place
        return RuntimeError(
            f"{where} can't run the actor: {reason}; install the package there, or send it with the job"
        )
    if place is None:
        return Lost(f"the actor for the worker is gone: {reason}")
    alive = any(node["NodeID"] == place.node and node["Alive"] for node in ray.nodes())
    what = "the actor on the node" if alive else "the node"
    return Lost(f"{what} {place} is gone (Ray's id of the node: {place.node}): {reason}")


def _reason(error: RayError) -> str:
    """Returns what Ray says, in one line without its advice."""
    lines = [line.strip() for line in re.sub("\x1b\\[[0-9;]*m", "", str(error)).splitlines()]
    if "failed to import on the worker" in str(error):
        lines = lines[-1:]
    kept = [line for line in lines if line and not _HEAD.match(line)]
    return " ".join(kept or lines).partition(" Some common causes include")[0][:REASON_CHARS]


def _amounts(amounts: Mapping[str, float]) -> str:
    """Returns amounts of resources as text, such as "{CPU: 1, memory: 2 GiB}"."""
    units = {
        name: f"{value / 2**30:.3g} GiB" if name == "memory" else f"{value:.6g}" for name, value in amounts.items()
    }
    return "{" + ", ".join(f"{name}: {text}" for name, text in units.items()) + "}"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in labels.items()) + "}"


def _nodes() -> List[Any]:
    return [node for node in ray.nodes() if node["Alive"]]


def _fits(need: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0) >= amount for name, amount in need.items())
