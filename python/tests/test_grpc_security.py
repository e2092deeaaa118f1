"""Who may call a worker that serves gRPC: tokens, keys and ports. adapters/grpc has the tests with the host's TLS."""

import errno
import json
import os
import socket
import threading
import time

import pytest

grpc = pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")

from snakepit_bridge.grpc import transport as module  # noqa: E402
from snakepit_bridge.grpc.snakepit_pb2 import ExecuteRequest  # noqa: E402
from snakepit_bridge.grpc.snakepit_pb2_grpc import WorkerStub  # noqa: E402
from snakepit_bridge.grpc.transport import GrpcTransport  # noqa: E402
from snakepit_bridge.transport import Launch, Unavailable  # noqa: E402


def wrong_tokens(token):
    """Returns lists of tokens. None of them is the one right token."""
    return [[], [""], [token[:-1]], [token[1:]], [token[0]], [token + "x"], ["x" * len(token)], [token, token]]


def test_tokens_are_compared_whole_and_in_constant_time(environ, monkeypatch):
    monkeypatch.setenv("SNAKEPIT_GRPC_CLIENT_TOKEN", "client's")
    transport = GrpcTransport(Launch(environ))
    assert "SNAKEPIT_GRPC_CLIENT_TOKEN" not in os.environ
    compared = []

    def compare(shown, right):
        compared.append((shown, right))
        return compare_digest(shown, right)

    compare_digest = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    with grpc.insecure_channel(transport.endpoint) as channel:
        client = WorkerStub(channel)
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        rpcs = [
            (lambda shown: next(client.Attach(iter(()), metadata=shown)), "host's", "client's"),
            (lambda shown: client.Execute(ExecuteRequest(command="x"), metadata=shown), "client's", "host's"),
            (lambda shown: next(client.ExecuteStream(ExecuteRequest(), metadata=shown)), "client's", "host's"),
            (lambda shown: check(b"", metadata=shown), "client's", "host's"),
        ]
        for rpc, right, other in rpcs:
            for tokens in [*wrong_tokens(right), [other]]:
                compared.clear()
                with pytest.raises(grpc.RpcError) as caught:
                    rpc([("snakepit-token", token) for token in tokens])
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, tokens
                assert compared == [(token.encode(), right.encode()) for token in tokens if len(tokens) == 1]
        assert check(b"", metadata=[("snakepit-token", "client's")]) == b"\x08\x02"  # not serving yet
    transport.close()


def test_an_empty_token_admits_nobody(environ):
    """Without a client token there is nothing that a client could show."""
    transport = GrpcTransport(Launch(environ))
    with grpc.insecure_channel(transport.endpoint) as channel:
        for tokens in ([], [""], ["host's"]):
            with pytest.raises(grpc.RpcError) as caught:
                WorkerStub(channel).Execute(ExecuteRequest(), metadata=[("snakepit-token", t) for t in tokens])
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    transport.close()


def test_strangers_are_refused_before_they_send_a_message(environ, monkeypatch):
    monkeypatch.setenv("SNAKEPIT_GRPC_CLIENT_TOKEN", "client's")
    transport = GrpcTransport(Launch(environ))
    never = threading.Event()
    with grpc.insecure_channel(transport.endpoint, options=[("grpc.max_send_message_length", -1)]) as channel:
        for method in ("v1.Worker/Execute", "v1.Worker/ExecuteStream", "v1.Worker/Attach", "v1.Worker/Other", "x/y"):
            rpc = channel.stream_stream(f"/snakepit.{method}")
            for messages in ((never.wait() for _ in range(1)), iter([bytes(transport.max_frame * 2)])):
                with pytest.raises(grpc.RpcError) as caught:
                    next(rpc(messages, metadata=[("snakepit-token", "stranger's")]))
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, method
    never.set()
    transport.close()


def test_compressed_messages_are_refused(environ, monkeypatch):
    monkeypatch.setenv("SNAKEPIT_GRPC_CLIENT_TOKEN", "client's")
    transport = GrpcTransport(Launch(environ))
    with grpc.insecure_channel(transport.endpoint) as channel:
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            with pytest.raises(grpc.RpcError) as caught:
                WorkerStub(channel).Execute(
                    ExecuteRequest(command="x", args=bytes(1000)),
                    metadata=[("snakepit-token", "client's")],
                    compression=compression,
                )
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    transport.close()


@pytest.mark.parametrize("ports", ["", "20000-20001"])
def test_a_port_has_no_plain_text(environ, monkeypatch, ports):
    environ["SNAKEPIT_GRPC_PORTS"] = ports
    if not ports:
        monkeypatch.setattr(module.sys, "platform", "win32")
    with pytest.raises(Unavailable, match="no keys for TLS"):
        GrpcTransport(Launch(environ))


class Refusing:
    """A server that binds no port."""

    def __init__(self, do=lambda port: None):
        self.asked, self.do = [], do

    def add_secure_port(self, address, credentials):
        self.asked.append(int(address.rpartition(":")[2]))
        self.do(self.asked[-1])
        return 0


def free_port():
    """Returns a range of ports with one that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"{port}-{port}"


def listen(server, ports, host="127.0.0.1", **environ):
    module._listen(server, Launch({"SNAKEPIT_GRPC_PORTS": ports, **environ}), host, "credentials")


@pytest.mark.parametrize("ports", ["", "free"])
def test_a_port_that_grpc_refuses_may_have_either_cause(ports):
    with pytest.raises(Unavailable, match="does not take the certificate and key, or it can't listen") as caught:
        listen(Refusing(), ports and free_port())
    assert "GRPC_VERBOSITY=debug" in caught.value.remedy


def test_a_port_that_is_taken_meanwhile_is_in_use():
    ports = free_port()
    port = int(ports.partition("-")[0])
    with socket.socket() as other:
        server = Refusing(lambda port: (other.bind(("127.0.0.1", port)), other.listen()))
        with pytest.raises(Unavailable, match=f"each port from {port} to {port} is in use"):
            listen(server, ports)
        assert server.asked == [port]


def test_a_port_that_this_process_may_not_bind(monkeypatch):
    class Forbidden(socket.socket):
        def bind(self, address):
            if address[1] == 81:
                raise OSError(errno.EADDRINUSE, "in use")
            raise PermissionError(errno.EACCES, "not allowed")

    monkeypatch.setattr(module.socket, "socket", Forbidden)
    with pytest.raises(Unavailable, match=r"no port from 80 to 81 can be bound: \[Errno 13\] not allowed"):
        listen(Refusing(), "80-81")


def test_keys_that_are_none(environ, monkeypatch):
    environ["SNAKEPIT_GRPC_TLS"] = "stdin"
    environ["SNAKEPIT_GRPC_PORTS"] = free_port()
    monkeypatch.setattr(module, "_read_input", lambda: b'{"key": "k", "certificate": "c"}')
    with pytest.raises(Unavailable, match="does not take the certificate and key, or"):
        GrpcTransport(Launch(environ))


@pytest.mark.parametrize("size", [0, module.INPUT_BYTES, 10 * module.INPUT_BYTES])
def test_no_more_than_the_limit_is_read_of_the_input(environ, monkeypatch, size):
    environ["SNAKEPIT_GRPC_TLS"] = "stdin"
    left = [size]

    def read(descriptor, count):
        assert descriptor == 0
        taken = min(count, left[0], 1000)
        left[0] -= taken
        return b"x" * taken

    monkeypatch.setattr(module.os, "read", read)
    with pytest.raises(Unavailable, match=f"has {min(size, module.INPUT_BYTES)} bytes that are not the keys"):
        GrpcTransport(Launch(environ))
    assert left[0] == max(0, size - module.INPUT_BYTES)


def on_port(environ, host, **more):
    """Returns a transport that speaks plain text on a port."""
    return GrpcTransport(Launch({**environ, "SNAKEPIT_GRPC_TLS": "off", "SNAKEPIT_GRPC_HOST": host, **more}))


def loopback_addresses():
    """Returns the loopback addresses that this machine has."""
    found = []
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.bind((host, 0))
            found.append(host)
        except OSError:
            pass
    return found


@pytest.mark.parametrize("host", loopback_addresses())
def test_plain_text_on_a_loopback_address(environ, host):
    transport = on_port(environ, host)
    shown = transport.endpoint.rpartition(":")[0]
    assert shown == (f"[{host}]" if ":" in host else host)
    with grpc.insecure_channel(transport.endpoint) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            WorkerStub(channel).Execute(ExecuteRequest())
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert sorted(connected for _, connected in transport._ours())[:2] == [False, True]
    transport.close()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
        other.bind((host, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"each port from {port} to {port} is in use"):
            on_port(environ, host, SNAKEPIT_GRPC_PORTS=f"{port}-{port}")


def test_plain_text_on_loopback_is_the_default_address(environ):
    environ["SNAKEPIT_GRPC_TLS"] = "off"
    transport = GrpcTransport(Launch(environ))
    assert transport.endpoint.startswith("127.0.0.1:")
    transport.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "10.0.0.5", "2001:db8::1"])
def test_others_get_no_plain_text(environ, host):
    with pytest.raises(Unavailable, match=f"asks for plain text on {host}, where others could listen in"):
        on_port(environ, host)


def test_an_address_alone_allows_no_plain_text(environ):
    environ["SNAKEPIT_GRPC_HOST"] = "127.0.0.1"
    with pytest.raises(Unavailable, match="no keys for TLS"):
        GrpcTransport(Launch(environ))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]", "300.0.0.1"])
def test_a_host_that_is_no_address(environ, host):
    with pytest.raises(Unavailable, match="that is no IP address"):
        on_port(environ, host)


def test_an_address_of_another_machine(monkeypatch):
    class Elsewhere(socket.socket):
        def bind(self, address):
            raise OSError(errno.EADDRNOTAVAIL, "not here")

    monkeypatch.setattr(module.socket, "socket", Elsewhere)
    with pytest.raises(Unavailable, match=r"no port of 192.0.2.1 can be bound: \[Errno \d+\] not here") as caught:
        listen(Refusing(), "", "192.0.2.1", SNAKEPIT_GRPC_HOST="192.0.2.1")
    assert caught.value.remedy == "choose another address or other ports for the back end's workers"


def test_too_few_ports_of_a_back_end():
    ports = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(ports.partition("-")[0])))
        other.listen()
        with pytest.raises(Unavailable, match="is in use") as caught:
            listen(Refusing(), ports, SNAKEPIT_GRPC_HOST="127.0.0.1")
    assert caught.value.remedy == "choose more ports for the back end's workers"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_sockets_of_all_addresses_are_closed_in_a_child(environ, monkeypatch, host):
    """Their connections have concrete addresses."""
    crypto = pytest.importorskip("snakepit_bridge.launch.certificate")
    pytest.importorskip("cryptography")
    own = crypto.make_certificate()
    keys = json.dumps({"key": own.key, "certificate": own.pem}).encode()
    monkeypatch.setattr(module, "_read_input", lambda: keys)
    try:
        transport = GrpcTransport(Launch({**environ, "SNAKEPIT_GRPC_TLS": "stdin", "SNAKEPIT_GRPC_HOST": host}))
    except Unavailable as error:
        pytest.skip(str(error))  # this system has no IPv6
    port = int(transport.endpoint.rpartition(":")[2])
    assert transport.endpoint == (f"[::]:{port}" if host == "::" else f"0.0.0.0:{port}")
    with socket.create_connection(("127.0.0.1", port)) as client, socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))

        def connections():
            return sum(connected for descriptor, connected in transport._ours() if descriptor != client.fileno())

        deadline = time.monotonic() + 20
        while not connections() and time.monotonic() < deadline:
            time.sleep(0.01)
        descriptors = {descriptor for descriptor, _ in transport._ours()}
        assert connections() == 1
        assert not descriptors & {client.fileno(), other.fileno()}
    transport.close()


def test_no_token():
    with pytest.raises(RuntimeError, match="SNAKEPIT_HOST_TOKEN"):
        GrpcTransport(Launch({}))
