import os
import socket
import time

from snakepit_bridge import ItemError, Worker

worker = Worker()


@worker.command
def compute(a, b):
    return {"sum": a + b, "data": b"\x00\xff"}


@worker.command
def nothing():
    return None


@worker.command
def count(ctx, n, pad=0):
    for i in range(n):
        yield ItemError("odd one out") if i == 3 else {"i": i, "pad": "x" * pad}
    return {
        "total": n,
        "session": ctx.session and ctx.session.id,
        "metadata": dict(ctx.metadata),
        "left": ctx.remaining(),
    }


@worker.command
def fail(message="bad operand"):
    raise ValueError(message)


@worker.command
def touch(path, until=""):
    """Makes a file; then waits until the call is cancelled, which makes another one, or the file until exists."""
    open(path, "w").close()
    try:
        while not (until and os.path.exists(until)):
            time.sleep(0.01)
    except BaseException:
        open(path + ".cancelled", "w").close()
        raise


@worker.command
def fork():
    """Returns how a child ends that leaves by sys.exit: with 7 if it has none of the connection's descriptors."""
    pid = os.fork()
    if pid == 0:
        raise SystemExit(7 + len(sockets(f"grpc-{os.getppid()}.sock")))
    return {"own": len(sockets(f"grpc-{os.getpid()}.sock")), "child": os.WEXITSTATUS(os.waitpid(pid, 0)[1])}


@worker.command
def shown():
    """Returns what the system shows of this process, and what is left of its standard input."""
    found = {"input": os.read(0, 1).decode(), "files": ""}
    for name in ("environ", "cmdline"):
        with open(f"/proc/self/{name}") as file:
            found[name] = file.read()
    for name in os.listdir(os.environ["SNAKEPIT_DIR"]):
        if not name.startswith("stacks."):
            found["files"] += name
    return found


def sockets(name):
    """Returns the descriptors of sockets at an address that ends with the name."""
    found = []
    for fd in os.listdir("/dev/fd"):
        try:
            with socket.socket(fileno=os.dup(int(fd))) as copy:
                if str(copy.getsockname()).endswith(name):
                    found.append(fd)
        except OSError:
            pass
    return found


if __name__ == "__main__":
    worker.run()
