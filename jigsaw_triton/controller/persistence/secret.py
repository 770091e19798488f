"""The secret that a deployment's servers ask for before they let themselves be changed."""

import os
import secrets
from contextlib import suppress

from jigsaw_triton.controller.persistence.paths import Paths


def deployment_secret(paths: Paths) -> str:
    """Returns the secret of a deployment's servers, which is made with the first of them."""
    with suppress(FileNotFoundError):
        # An empty secret would keep nobody out.
        if secret := paths.secret.read_text(encoding="ascii"):
            return secret
    fresh = paths.secret.with_name(".secret")
    fresh.unlink(missing_ok=True)
    with fresh.open("x", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(24))
        file.flush()
        os.fsync(file.fileno())
    fresh.chmod(0o600)
    return fresh.replace(paths.secret).read_text(encoding="ascii")
