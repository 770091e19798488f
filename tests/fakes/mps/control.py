"""The program that is installed as `nvidia-cuda-mps-control`: daemon (`-f`), MPS server (`--server`) or client.

Like the real program, it finds its daemon by CUDA_MPS_PIPE_DIRECTORY. Since tests call no CUDA, it takes every process
with that variable, except its own, for a client of MPS.
"""

import os
import socket
import sys
from pathlib import Path

PIPES = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
SOCKET = "control"
"""Path of the socket, relative to the pipe directory, whose path may be too long for a socket address."""


def clients() -> list[int]:
    """Returns the ids of the processes that would use this daemon."""
    wanted = f"CUDA_MPS_PIPE_DIRECTORY={PIPES}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mine = __file__.encode() in (process / "cmdline").read_bytes().split(b"\0")
            if not mine and wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)


def serve() -> int:
    """Runs the daemon."""
    # The command of a client, which tests run often, does not need this import.
    import subprocess

    if os.environ["MPS_STANDIN"] == "broken":
        print("Cannot create the control socket: no such device", file=sys.stderr)
        return 1
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    Path("nvidia-cuda-mps-control.pid").write_text(f"{os.getpid()}\n")
    listener.listen()
    server: subprocess.Popen[bytes] | None = None
    while True:
        connection, _ = listener.accept()
        with connection:
            command, *arguments = connection.recv(1024).decode().split()
            if command == "quit":
                if server is not None:
                    server.kill()
                return 0
            found = [] if os.environ["MPS_STANDIN"] == "deaf" else clients()
            if found and server is None:
                # The real server has its own session, too, so that no signal to the daemon's process group reaches it.
                server = subprocess.Popen([sys.executable, __file__, "--server"], start_new_session=True)
            if command == "get_server_list":
                found = [server.pid] if server is not None else []
            elif server is None or arguments != [str(server.pid)]:
                found = []
            connection.sendall("".join(f"{pid}\n" for pid in found).encode())


def ask() -> int:
    """Runs the client, which sends the commands in its standard input to the daemon."""
    for line in sys.stdin:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(SOCKET)
            except OSError:
                print("Cannot find MPS control daemon process")
                return 1
            connection.sendall(line.encode())
            while answer := connection.recv(4096):
                print(answer.decode(), end="")
    return 0


if __name__ == "__main__":
    os.chdir(PIPES)
    if sys.argv[1:] == ["--server"]:
        import signal

        signal.pause()
    sys.exit(serve() if sys.argv[1:] == ["-f"] else ask())
