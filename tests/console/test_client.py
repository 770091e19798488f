import socket
from pathlib import Path

import pytest

from jigsaw_triton.console.client import ControllerClient, ControllerGoneError, ControllerHungError
from jigsaw_triton.errors import JigsawError
from tests.fakes.raw_server import answering


def test_a_missing_socket_means_no_controller(run_dir: Path) -> None:
    with pytest.raises(
        ControllerGoneError, match=r"no controller is running here; `jigsaw-triton status` waits"
    ) as caught:
        ControllerClient(run_dir / "controller.sock").status()
    assert caught.value.exit_code == 4
    assert caught.value.where == str(run_dir / "controller.sock")


def test_a_socket_without_a_listener_means_no_controller(run_dir: Path) -> None:
    path = run_dir / "controller.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(ControllerGoneError):
        ControllerClient(path).status()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"what?\r\n"])
def test_a_controller_that_ends_during_its_answer_is_gone(run_dir: Path, answer: bytes) -> None:
    path = run_dir / "controller.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with answering(listener, answer), pytest.raises(ControllerGoneError, match="ended before it answered; `jig"):
            ControllerClient(path).status()


def test_an_answer_that_is_not_json_is_an_error(run_dir: Path) -> None:
    path = run_dir / "controller.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"
        with (
            answering(listener, answer),
            pytest.raises(JigsawError, match=r"answer \(500\) is not JSON") as caught,
        ):
            ControllerClient(path).status()
    assert caught.value.exit_code == 1


def test_a_controller_that_does_not_answer_in_time_hangs(run_dir: Path) -> None:
    path = run_dir / "controller.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(ControllerHungError, match="does not answer"):
            ControllerClient(path, timeout_s=0.05).status()
