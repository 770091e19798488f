"""Errors of `ray.init` in the terms of the user. `tests/e2e/test_ray.py` has the rest."""

import socket

import pytest

from jigsaw_triton.errors import InputError, JigsawError, ServerError
from jigsaw_triton.servers.engines.ray_process import _check_reachable, _explained


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        ("Version mismatch: The cluster was started with:\n  Ray: 2.50.0", InputError, "the same Ray on all machines"),
        ("Token authentication is enabled but no token was found", InputError, "RAY_AUTH_TOKEN"),
        ("ray client connection timeout", ServerError, "ray status"),
    ],
)
def test_an_error_of_ray_says_what_to_do(text: str, kind: type[JigsawError], hint: str) -> None:
    error = _explained(RuntimeError(text), "Ray at auto")
    assert type(error) is kind and error.where == "Ray at auto"
    assert hint in error.hint and " ".join(text.split()) in error.message


def test_an_address_at_which_nobody_listens_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _check_reachable(f"127.0.0.1:{port}", "Ray")
        _check_reachable(f"ray://127.0.0.1:{port}", "Ray")
    with pytest.raises(ServerError, match=r"Ray: the cluster does not answer: .*correct `ray: \{address"):
        _check_reachable(f"ray://127.0.0.1:{port}", "Ray")
    # With `auto`, Ray itself looks for the cluster, so no connection is tried.
    _check_reachable("auto", "Ray")
