"""The executors. An executor decides which thread reads the connection and which threads run handlers.

`Leader`: the main thread reads and runs handlers. This saves a hand-over between threads for each call. A second thread
reads while a handler runs for long.
`ReaderAndMain`: a thread reads, and the main thread runs handlers. It serves where clients other than the host call, or
where no signal can interrupt a handler on the main thread.
`ThreadPool`: a thread reads, and several threads run handlers.
`Loop`: a thread reads, and an asyncio loop on the main thread runs async handlers.
"""

from __future__ import annotations

import errno
import select
import sys
from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Deque, Dict, Optional, Set

from ._calls import Call
from ._errors import attempt
from ._housekeeper import TICK
from ._interrupt import Interrupter, MainThread, Tasks, Threads, enter, enter_async
from ._signals import may_raise
from ._stdlib import stdlib_first
from ._unpatched import Lock, RLock, SimpleQueue, get_ident, monotonic, poll, spawn, wait_select

if TYPE_CHECKING:
    import asyncio

    from ._runner import Runner


_POLL_INTERVAL = 200  # milliseconds between two looks whether the connection has ended


def choose(runner: Runner, is_async: bool) -> Executor:
    """Returns the executor that suits the worker and this system."""
    if is_async:
        return Loop(runner)
    if runner.concurrency > 1:
        return ThreadPool(runner)
    if runner.transport.takes_clients or not MainThread.possible():
        return ReaderAndMain(runner)
    return Leader(runner)


class Executor:
    """Runs the calls of a runner."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        # Held by the thread that reads the connection. It is an RLock because that knows its owner.
        self.reading: Any = RLock()
        self.is_read = False  # whether a thread holds it, which an RLock does not tell

    def is_reading(self) -> bool:
        """Reports whether the calling thread reads the connection."""
        return bool(self.reading._is_owned())

    def hook(self, function: Callable[[], Any]) -> None:
        """Runs a function that sets up or tears down. Later calls begin with the context variables that it leaves."""
        self.runner.handlers.base.run(enter, function, (), {})

    def serve(self) -> None:
        """Serves until the connection has ended and no handler runs any more."""
        raise NotImplementedError

    def submit(self, count: int) -> None:
        """Called when ``count`` more calls are ready, by the thread that has taken them from the connection."""

    def tick(self) -> bool:
        """Called by the housekeeper at each of its ticks. Reports whether it needs the next one, too."""
        return False

    def flush_soon(self) -> None:
        """Called by an async handler's task after an item was queued."""
        raise NotImplementedError

    def close(self) -> None:
        """Called after the last hook."""

    def stop(self) -> None:
        """Called by any thread when the connection has ended."""

    def wait(self, call: Call, ready: Callable[[], bool]) -> None:
        """Waits in a handler's thread until ready() is true, or a signal handler has raised in the call.

        The code that makes ready() true has to wake the call.
        """
        self.runner.outbox.flush()
        waiter: SimpleQueue[None] = SimpleQueue()
        call.waiters.append(waiter)
        try:
            while not ready() and call.raised is None:
                waiter.get()
        finally:
            call.waiters.remove(waiter)

    async def wait_async(self, call: Call, ready: Callable[[], bool]) -> None:
        """Waits in a handler's task, like `wait`."""
        raise NotImplementedError

    def _run_ready(self, interrupter: Interrupter) -> None:
        """Runs the calls that are ready on the calling thread, one after the other, and writes their answers."""
        ready, run, outbox = self.runner.ready, self.runner.handlers.run, self.runner.outbox
        if len(ready) > 1:  # the first item of a single call must not wait
            outbox.start_batch()
        while ready:
            try:
                call = ready.popleft()
            except IndexError:  # the connection has ended
                break
            run(call, interrupter)
            if ready:
                outbox.flush_soon()
        outbox.flush()

    def _read_in_thread(self) -> None:
        spawn(self.runner.guarded(self._read), "snakepit-reader")

    def _read(self) -> None:
        with self.reading:
            self.is_read = True
            while not self.runner.ended:
                self.runner.pump()


class Leader(Executor):
    """The main thread reads a batch of frames and runs its calls.

    While it runs calls, nobody reads. If the housekeeper finds a batch that has taken longer than a tick, a second
    thread, the follower, reads in the main thread's place until the batch has ended. So a call costs no hand-over
    between threads, and a ping, a cancel or an answer of the host waits for two ticks at most, and for the threads to
    get the interpreter's lock.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self.main = get_ident()
        self.busy = False  # the main thread runs a batch
        self.batch = 0  # counts the batches
        self.since = 0.0  # when the last batch began
        self.asked: SimpleQueue[None] = SimpleQueue()  # an entry asks the follower to read
        self.released = Lock()  # the follower unlocks it when it has stopped reading
        self.released.acquire()
        self.fd = runner.transport.fileno()
        self.poll: Any = None  # used by the main thread alone
        if self.fd >= 0 and poll is not None:
            self.poll = poll()
            self.poll.register(self.fd, select.POLLIN)

    def serve(self) -> None:
        runner, ready, reading, housekeeper = self.runner, self.runner.ready, self.reading, self.runner.housekeeper
        interrupter = MainThread()
        spawn(runner.guarded(self._follow), "snakepit-follower")
        while not runner.ended:
            if ready:
                self.batch += 1
                self.since = monotonic()
                self.busy = True
                if not housekeeper.awake:
                    housekeeper.wake()
                self._run_ready(interrupter)
                self.busy = False
            elif reading.acquire(False):
                self.is_read = True
                try:
                    if not ready and not runner.ended:
                        runner.pump()
                finally:
                    self.is_read = False
                    reading.release()
            else:
                self.released.acquire()

    def tick(self) -> bool:
        if not self.busy or self.is_read:
            return False
        if monotonic() - self.since > TICK:
            self.asked.put(None)
        return True

    def stop(self) -> None:
        self.asked.put(None)
        self._signal_released()

    def wait(self, call: Call, ready: Callable[[], bool]) -> None:
        self.runner.outbox.flush()
        if ready():
            return
        if self.poll is None or get_ident() != self.main or not self.reading.acquire(False):
            if not self.is_read:
                self.asked.put(None)
            super().wait(call, ready)
            return
        self.is_read = True
        try:
            while not ready() and call.raised is None:
                # The program's signal handlers may raise during the poll, but nowhere else here. The poll has a timeout
                # because the connection may end without an event here.
                if self._readable():
                    self.runner.pump()
        finally:
            self.is_read = False
            self.reading.release()
            self.runner.housekeeper.wake()

    @may_raise
    def _readable(self) -> bool:
        """Waits until the connection can be read, or for `_POLL_INTERVAL`."""
        try:
            return bool(self.poll.poll(_POLL_INTERVAL))
        except OSError as exc:
            if exc.errno != errno.EINVAL or (exc.__traceback__ and exc.__traceback__.tb_next):
                raise  # perhaps of a signal handler
            # The program has lowered its limit of open files to 0. select has no such limit.
            return bool(wait_select([self.fd], [], [], _POLL_INTERVAL / 1000)[0])

    def _follow(self) -> None:
        runner = self.runner
        while not runner.ended:
            self.asked.get()
            batch = self.batch
            if self.busy and self.reading.acquire(False):
                self.is_read = True
                try:
                    while self.busy and self.batch == batch and not runner.ended:
                        runner.pump()
                finally:
                    self.is_read = False
                    self.reading.release()
                    self._signal_released()
                if self.busy:  # with another batch, for which nobody has asked yet
                    runner.housekeeper.wake()

    def _signal_released(self) -> None:
        try:
            self.released.release()
        except RuntimeError:  # the main thread has not noticed the last time yet
            pass


class ReaderAndMain(Executor):
    """A thread reads, and the serving thread runs one handler at a time."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self.wakeups: SimpleQueue[None] = SimpleQueue()

    def serve(self) -> None:
        runner = self.runner
        interrupter: Interrupter = MainThread() if MainThread.possible() else Threads()
        self._read_in_thread()
        while not runner.ended:
            self.wakeups.get()
            self._run_ready(interrupter)

    def submit(self, count: int) -> None:
        self.wakeups.put(None)

    def stop(self) -> None:
        self.wakeups.put(None)


class ThreadPool(Executor):
    """A thread reads, and as many threads as the worker's concurrency run handlers.

    The main thread stays free for signal handlers, or runs the loop of `Loop`.

    Args:
        runner: The runner.
        ready: The calls to run; by default all of the runner's.
        done: Called by the pool's threads after each call.
    """

    def __init__(
        self, runner: Runner, ready: Optional[Deque[Call]] = None, done: Optional[Callable[[Call], None]] = None
    ) -> None:
        super().__init__(runner)
        self.ready = runner.ready if ready is None else ready
        self.done = done
        self.wakeups: SimpleQueue[None] = SimpleQueue()  # an entry for each ready call; at the end, one for each thread
        self.interrupter = Threads()
        self.left: SimpleQueue[None] = SimpleQueue()  # an entry for each thread that has ended

    def serve(self) -> None:
        # The reader comes first. Once a handler has run, a finalizer may interrupt this thread and wait for the host.
        self._read_in_thread()
        self.start()
        self.join()

    def start(self) -> None:
        """Starts the threads."""
        sys.setswitchinterval(0.001)  # with the default, a ping waits 5 ms for each busy thread
        for n in range(self.runner.concurrency):
            spawn(self._work, f"snakepit-{n}")

    def join(self) -> None:
        """Waits until all threads have ended."""
        for _ in range(self.runner.concurrency):
            self.left.get()

    def submit(self, count: int) -> None:
        for _ in range(count):
            self.wakeups.put(None)

    def stop(self) -> None:
        self.submit(self.runner.concurrency)

    def _work(self) -> None:
        self.runner.guarded(self._run)()
        self.left.put(None)

    def _run(self) -> None:
        runner = self.runner
        while not runner.ended:
            self.wakeups.get()
            try:
                call = self.ready.popleft()
            except IndexError:  # the connection has ended
                continue
            runner.handlers.run(call, self.interrupter)
            runner.outbox.flush()
            if self.done is not None:
                self.done(call)
            del call  # otherwise its arguments would be kept until the next one


class Loop(Executor):
    """A thread reads, and the main thread runs an asyncio loop.

    Plain handlers run on the main thread, too. The loop is stopped meanwhile, so they may run loops of their own. With
    a concurrency above one, they run in a pool of threads.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        with stdlib_first():
            import asyncio
        self._set_event_loop = asyncio.set_event_loop
        self.loop = asyncio.new_event_loop()
        self._close_loop = self.loop.close
        # A plain handler may take this loop by asyncio.get_event_loop, use it, and close it. It must survive that.
        attempt(None, setattr, self.loop, "close", self._refuse_close)
        self._set_event_loop(self.loop)
        self.interrupter = Tasks(self.loop)
        self.plain_interrupter: Interrupter = self.interrupter if self.interrupter.signals else Threads()
        self.tasks: Set[asyncio.Task[None]] = set()
        self.main_call: Optional[Call] = None  # the call that the main thread runs once the loop has stopped
        self.in_main = False  # it runs; if the loop runs meanwhile, the handler runs it
        self.pool: Optional[ThreadPool] = None
        self.pooled: Deque[Call] = deque()
        self.in_pool: Dict[int, Call] = {}  # by id: the calls that the pool has queued or runs
        self.scheduled = False  # _dispatch is scheduled on the loop
        self.flushing = False  # _flush is scheduled on the loop
        self.served = False  # from then on, a late request to stop must not end the loop of a tear-down

    def hook(self, function: Callable[[], Any]) -> None:
        base = self.runner.handlers.base
        result = base.run(enter, function, (), {})
        if hasattr(result, "__await__"):
            self.loop.run_until_complete(base.run(self.loop.create_task, self._hook(result)))

    async def _hook(self, awaitable: Awaitable[Any]) -> None:
        try:
            await enter_async(awaitable)
        finally:
            self.runner.handlers.base = copy_context()  # the task ran in a copy of base and has changed only that

    def serve(self) -> None:
        runner = self.runner
        if runner.concurrency > 1:
            self.pool = ThreadPool(runner, self.pooled, self._pooled_done)
            self.pool.start()
        self._read_in_thread()
        try:
            while not runner.ended or self.tasks:
                if self.main_call is not None:  # another plain call; between two of them the tasks get a turn
                    self.loop.stop()
                self.loop.run_forever()
                call, self.main_call = self.main_call, None
                if call is not None:
                    self._run_in_main(call)
                del call  # otherwise its arguments would be kept until the next one
        finally:
            self.served = True
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()

    def _refuse_close(self) -> None:
        if self.loop.is_running():
            self._close_loop()  # it says that a running loop can't be closed

    def _run_in_main(self, call: Call) -> None:
        attempt(None, self._set_event_loop, self.loop)  # asyncio.run of an earlier handler has left none
        self.in_main = True
        try:
            self.runner.handlers.run(call, self.plain_interrupter)
        finally:
            self.in_main = False
        self.runner.outbox.flush()
        self._dispatch()

    def close(self) -> None:
        import asyncio

        left = asyncio.all_tasks(self.loop)  # tasks that handlers have left behind
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.wait(left))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self._close_loop()

    def submit(self, count: int) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon_threadsafe(self._dispatch)

    def stop(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._stop_if_done)
        except RuntimeError:  # the program has closed the loop, and the main thread has noticed
            pass

    def flush_soon(self) -> None:
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self._flush)
            self.runner.housekeeper.wake()  # it writes if the handler blocks the loop

    async def wait_async(self, call: Call, ready: Callable[[], bool]) -> None:
        import asyncio

        self.runner.outbox.flush()
        event = asyncio.Event()
        waiter: Any = _Waker(self.loop, event)
        call.waiters.append(waiter)
        try:
            while not ready() and call.raised is None:
                await event.wait()
                event.clear()
        finally:
            call.waiters.remove(waiter)

    def _dispatch(self) -> None:
        self.scheduled = False
        if self.in_main:  # it is called again when the handler has returned
            return
        runner = self.runner
        while runner.ready and len(self.tasks) + len(self.in_pool) < runner.concurrency and self.main_call is None:
            try:
                call = runner.ready.popleft()
            except IndexError:  # the connection has ended
                break
            if call.command.is_async:
                if runner.unstarted.pop(call.id, None) is not None:
                    self._start(call)
            elif self.pool is not None:
                self.in_pool[call.id] = call
                self.pooled.append(call)
                self.pool.submit(1)
            else:
                self.main_call = call
                if self.loop.is_running():  # else the stop would end a loop that the handler runs
                    self.loop.stop()

    def _start(self, call: Call) -> None:
        runner = self.runner
        coroutine = runner.handlers.run_async(call, self.interrupter)
        try:
            # A task copies the context that creates it, and the current context may be another call's.
            task = runner.handlers.base.copy().run(self.loop.create_task, coroutine)
            self.tasks.add(task)
            task.add_done_callback(partial(self._task_done, call))
        except BaseException as exc:  # raised by a task factory of the program
            coroutine.close()
            runner.handlers.answered(call, exc)

    def _pooled_done(self, call: Call) -> None:
        """Called by the pool's threads."""
        del self.in_pool[call.id]
        if self.runner.ready:
            self.loop.call_soon_threadsafe(self._dispatch)

    def _task_done(self, call: Call, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not call.ended:  # the task was cancelled before it began, for instance by a program that cancels all tasks
            import asyncio

            self.runner.handlers.answered(call, (not task.cancelled() and task.exception()) or asyncio.CancelledError())
        self.flush_soon()
        if self.runner.ready:
            self._dispatch()
        if self.runner.ended:
            self._stop_if_done()

    def _stop_if_done(self) -> None:
        if not self.tasks and not self.served and not self.in_main:
            self.loop.stop()

    def _flush(self) -> None:
        """Writes what is queued. It runs at most once in each iteration of the loop."""
        self.flushing = False
        self.runner.outbox.flush()


class _Waker:
    """Wakes a task from any thread. It takes the place of a queue in `Call.waiters`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        self.loop = loop
        self.event = event

    def put(self, _: None) -> None:
        self.loop.call_soon_threadsafe(self.event.set)
