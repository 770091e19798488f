"""Errors of `ray.init` in the terms of the user. `tests/e2e/test_ray.py` has the rest."""

import pytest

from jigsaw_triton.errors import InputError, JigsawError, ServerError
from jigsaw_triton.servers.engines.ray_process import _explained


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
