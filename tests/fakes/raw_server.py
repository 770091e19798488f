"""A server that answers one connection with given bytes, whatever it is asked."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def answering(listener: socket.socket, answer: bytes) -> Iterator[None]:
    """Answers the next connection of a listener, and closes it. The `with` block has to make that connection.

    Args:
        listener: Socket that listens.
        answer: Bytes of the answer.
    """

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    thread.join()
