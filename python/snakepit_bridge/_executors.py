"""Who reads, and who runs handlers.

`Leader`: one thread reads and runs, which saves handing each call from thread to thread; a second one reads while a handler runs.
`ReaderAndMain`: a thread reads, the main thread runs. `Pool`: several threads run. `Loop`: an asyncio loop on the main thread runs.
"""

from __future__ import annotations

import select
import sys
from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Deque, Dict, Optional, Set

from ._calls import Call, Interrupter
from ._interrupt import MainThread, Tasks, Threads, enter, enter_async
from ._late import stdlib_first
from ._native import Lock, SimpleQueue, get_ident, spawn
from ._signals import may_raise

if TYPE_CHECKING:
    import asyncio

    from ._runner import Runner


_GLANCE = 200  # milliseconds


def choose(runner: Runner, is_async: bool) -> Executor:
    """Returns the mode that suits the worker and this system."""
    if is_async:
        return Loop(runner)
    if runner.concurrency > 1:
        return Pool(runner)
    if MainThread.possible() and hasattr(select, "epoll") and runner.transport.fileno() >= 0:
        try:
            return Leader(runner)
        except OSError:  # the descriptor is one that epoll refuses, such as a file
            pass
    return ReaderAndMain(runner)


class Executor:
    """Lets a runner's calls run."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def hook(self, function: Callable[[], Any]) -> None:
        """Runs a set-up or tear-down. Calls begin with the context variables that it leaves."""
        self.runner.handlers.base.run(enter, function, (), {})

    def serve(self) -> None:
        """Serves until the connection has ended and nothing runs any more."""
        raise NotImplementedError

    def submit(self, count: int) -> None:
        """Called by the thread that reads: so many more calls are ready."""

    def settle(self) -> None:
        """Called by an async handler's task after an item was queued."""
        raise NotImplementedError

    def close(self) -> None:
        """Called after the last hook."""

    def stop(self) -> None:
        """Called when the connection has ended, by any thread."""

    def wait(self, call: Call, ready: Callable[[], bool]) -> None:
        """Waits in a handler's thread until ready() holds. Whoever makes it hold wakes the call."""
        self.runner.outbox.flush()
        bell: SimpleQueue[None] = SimpleQueue()
        call.waiters.append(bell)
        try:
            while not ready() and call.raised is None:
                bell.get()
        finally:
            call.waiters.remove(bell)

    async def wait_async(self, call: Call, ready: Callable[[], bool]) -> None:
        """Waits in a handler's task until ready() holds."""
        raise NotImplementedError

    def _read_in_thread(self) -> None:
        spawn(self.runner.guarded(self._read), "snakepit-reader")

    def _read(self) -> None:
        while not self.runner.ended:
            self.runner.pump()


class Leader(Executor):
    """The main thread reads a batch and runs it.

    While it runs, the follower waits for more in an epoll registration that is armed before the batch and disarmed after it. It wakes only
    if something comes meanwhile: a ping, a cancel, more calls.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self.fd = runner.transport.fileno()
        self.main = get_ident()
        self.reading = Lock()  # guards transport.read and runner.take
        self.busy = False
        self.epoll = select.epoll()
        self.epoll.register(self.fd, 0)
        self.readable = select.poll()  # for the main thread alone
        self.readable.register(self.fd, select.POLLIN)

    def serve(self) -> None:
        runner, ready, reading = self.runner, self.runner.ready, self.reading
        interrupter = MainThread()
        arm = select.EPOLLIN | select.EPOLLONESHOT
        modify, fd = self.epoll.modify, self.fd
        spawn(runner.guarded(self._follow), "snakepit-follower")
        while not runner.ended:
            if not ready:
                with reading:
                    if not ready and not runner.ended:
                        runner.pump()
                continue
            self.busy = True
            modify(fd, arm)
            if len(ready) > 1:  # the first item of a call that is alone must not wait for more
                runner.outbox.gather()
            while True:
                try:
                    call = ready.popleft()
                except IndexError:  # none is left, or the connection has ended
                    break
                runner.handlers.run(call, interrupter)
                if ready:
                    runner.outbox.settle()
            runner.outbox.flush()
            self.busy = False
            modify(fd, 0)

    @may_raise
    def wait(self, call: Call, ready: Callable[[], bool]) -> None:
        if get_ident() != self.main:
            super().wait(call, ready)
            return
        runner = self.runner
        runner.outbox.flush()
        if ready():
            return
        self.epoll.modify(self.fd, 0)
        try:
            while not ready() and call.raised is None:
                with self.reading:
                    # While it polls, and in nothing that it calls, signal handlers of the program's may raise. It looks again now and
                    # then because the connection may end without a word here.
                    if not ready() and call.raised is None and self.readable.poll(_GLANCE):
                        runner.pump()
        finally:
            self.epoll.modify(self.fd, select.EPOLLIN | select.EPOLLONESHOT)

    def _follow(self) -> None:
        runner = self.runner
        readable = select.poll()
        readable.register(self.fd, select.POLLIN)
        while not runner.ended:
            self.epoll.poll()
            if not self.reading.acquire(False):
                continue  # the main thread reads for itself
            try:
                if readable.poll(0):
                    runner.pump()
            finally:
                self.reading.release()
            if self.busy:
                self.epoll.modify(self.fd, select.EPOLLIN | select.EPOLLONESHOT)


class ReaderAndMain(Executor):
    """A thread reads, and the thread that serves runs one handler at a time."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self.bell: SimpleQueue[None] = SimpleQueue()

    def serve(self) -> None:
        runner, ready = self.runner, self.runner.ready
        interrupter: Interrupter = MainThread() if MainThread.possible() else Threads()
        self._read_in_thread()
        while not runner.ended:
            self.bell.get()
            if len(ready) > 1:  # the first item of a call that is alone must not wait for more
                runner.outbox.gather()
            while True:
                try:
                    call = ready.popleft()
                except IndexError:
                    break
                runner.handlers.run(call, interrupter)
                if ready:
                    runner.outbox.settle()
            runner.outbox.flush()

    def submit(self, count: int) -> None:
        self.bell.put(None)

    def stop(self) -> None:
        self.bell.put(None)


class Pool(Executor):
    """A thread reads, and as many threads as the worker's concurrency run handlers. The main thread is left to signal handlers."""

    def __init__(self, runner: Runner, ready: Optional[Deque[Call]] = None, done: Optional[Callable[[Call], None]] = None) -> None:
        super().__init__(runner)
        self.ready = runner.ready if ready is None else ready
        self.done = done
        self.bell: SimpleQueue[None] = SimpleQueue()
        self.interrupter = Threads()
        self.left: SimpleQueue[None] = SimpleQueue()  # an entry for each thread that has ended

    def serve(self) -> None:
        self.start()
        self._read_in_thread()
        self.join()

    def start(self) -> None:
        sys.setswitchinterval(0.001)  # else a ping waits 5 ms for each thread that spins
        for n in range(self.runner.concurrency):
            spawn(self._work, f"snakepit-{n}")

    def join(self) -> None:
        for _ in range(self.runner.concurrency):
            self.left.get()

    def submit(self, count: int) -> None:
        for _ in range(count):
            self.bell.put(None)

    def stop(self) -> None:
        self.submit(self.runner.concurrency)

    def _work(self) -> None:
        self.runner.guarded(self._run)()
        self.left.put(None)

    def _run(self) -> None:
        runner = self.runner
        while not runner.ended:
            self.bell.get()
            try:
                call = self.ready.popleft()
            except IndexError:  # the connection has ended
                continue
            runner.handlers.run(call, self.interrupter)
            runner.outbox.flush()
            if self.done is not None:
                self.done(call)


class Loop(Executor):
    """A thread reads, and the main thread runs an asyncio loop.

    Plain handlers run on the main thread too, with the loop stopped meanwhile, so that they may run loops of their own; with a concurrency
    above one they run in a pool.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        with stdlib_first():
            import asyncio
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.interrupter = Tasks(self.loop)
        self.plain_interrupter: Interrupter = self.interrupter if self.interrupter.signals else Threads()
        self.tasks: Set[asyncio.Task[None]] = set()
        self.plain: Optional[Call] = None  # what the main thread runs once the loop has stopped
        self.pool: Optional[Pool] = None
        self.pooled: Deque[Call] = deque()
        self.in_pool: Dict[int, Call] = {}  # by id: those that the pool has or runs
        self.scheduled = False
        self.flushing = False
        self.served = False  # then a request to stop that came late must not end a tear-down

    def hook(self, function: Callable[[], Any]) -> None:
        base = self.runner.handlers.base
        result = base.run(enter, function, (), {})
        if hasattr(result, "__await__"):
            self.loop.run_until_complete(base.run(self.loop.create_task, self._hook(result)))

    async def _hook(self, awaitable: Awaitable[Any]) -> None:
        try:
            await enter_async(awaitable)
        finally:
            self.runner.handlers.base = copy_context()  # a task has a copy, so this is what it leaves

    def serve(self) -> None:
        runner = self.runner
        if runner.concurrency > 1:
            self.pool = Pool(runner, self.pooled, self._pooled_done)
            self.pool.start()
        self._read_in_thread()
        try:
            while not runner.ended or self.tasks:
                self.loop.run_forever()
                if self.plain is not None:
                    call, self.plain = self.plain, None
                    runner.handlers.run(call, self.plain_interrupter)
                    runner.outbox.flush()
                    self._dispatch()
        finally:
            self.served = True
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()

    def close(self) -> None:
        import asyncio

        left = asyncio.all_tasks(self.loop)  # those that handlers have made and left behind
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.wait(left))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def submit(self, count: int) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon_threadsafe(self._dispatch)

    def stop(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._stop_if_done)
        except RuntimeError:  # the program has closed it, and the main thread has seen that
            pass

    def settle(self) -> None:
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self._flush)
            self.runner.housekeeper.wake()  # should the handler block the loop

    async def wait_async(self, call: Call, ready: Callable[[], bool]) -> None:
        import asyncio

        self.runner.outbox.flush()
        event = asyncio.Event()
        bell: Any = _Bell(self.loop, event)
        call.waiters.append(bell)
        try:
            while not ready() and call.raised is None:
                await event.wait()
                event.clear()
        finally:
            call.waiters.remove(bell)

    def _dispatch(self) -> None:
        self.scheduled = False
        runner = self.runner
        while runner.ready and len(self.tasks) + len(self.in_pool) < runner.concurrency and self.plain is None:
            try:
                call = runner.ready.popleft()
            except IndexError:  # the connection has ended
                break
            if call.plan.is_async:
                if runner.unstarted.pop(call.id, None) is not None:
                    self._start(call)
            elif self.pool is not None:
                self.in_pool[call.id] = call
                self.pooled.append(call)
                self.pool.submit(1)
            else:
                self.plain = call
                self.loop.stop()

    def _start(self, call: Call) -> None:
        runner = self.runner
        coroutine = runner.handlers.run_async(call, self.interrupter)
        try:
            # A task copies the context that it is made in, and this one's is whoever dispatches'.
            task = runner.handlers.base.copy().run(self.loop.create_task, coroutine)
            self.tasks.add(task)
            task.add_done_callback(partial(self._task_done, call))
        except BaseException as exc:  # of a task factory of the program's
            coroutine.close()
            runner.handlers.answered(call, exc)

    def _pooled_done(self, call: Call) -> None:
        """Called by the pool's threads."""
        del self.in_pool[call.id]
        if self.runner.ready:
            self.loop.call_soon_threadsafe(self._dispatch)

    def _task_done(self, call: Call, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not call.ended:  # cancelled before it began, perhaps with all tasks that the program found
            import asyncio

            self.runner.handlers.answered(call, (not task.cancelled() and task.exception()) or asyncio.CancelledError())
        self.settle()
        if self.runner.ready:
            self._dispatch()
        if self.runner.ended:
            self._stop_if_done()

    def _stop_if_done(self) -> None:
        if not self.tasks and not self.served:
            self.loop.stop()

    def _flush(self) -> None:
        """Writes once in each turn of the loop."""
        self.flushing = False
        self.runner.outbox.flush()


class _Bell:
    """Wakes a task from another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        self.loop = loop
        self.event = event

    def put(self, _: None) -> None:
        self.loop.call_soon_threadsafe(self.event.set)
