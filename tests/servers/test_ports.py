import os
import socket

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.servers import ports as module
from jigsaw_triton.servers.ports import check_free, free_ports, owner


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_a_port_in_use_is_reported_with_its_owner(listener: socket.socket) -> None:
    with listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} is already in use by process {os.getpid()} \(") as caught:
            check_free("127.0.0.1", port)
    assert caught.value.exit_code == 2
    assert caught.value.where == f"127.0.0.1:{port}"


def test_a_free_port_is_accepted(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    check_free("127.0.0.1", port)
    assert owner(port) == ""


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match="cannot listen on port 8000"):
        check_free("192.0.2.1", 8000)


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = free_ports("127.0.0.1", 3)
    assert len(set(ports)) == 3
    for port in ports:
        check_free("127.0.0.1", port)


def test_ports_in_use_are_not_free(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    with listener:
        monkeypatch.setattr(module, "_BELOW_EPHEMERAL", range(port := listener.getsockname()[1], port + 1))
        with pytest.raises(InputError, match="too few ports are free"):
            free_ports("127.0.0.1", 1)
