"""Forms that Envoy's configuration repeats. Pure functions without side effects."""

from typing import Any

Object = dict[str, Any]


def typed(kind: str, **fields: Any) -> Object:
    """Returns a message of one of Envoy's extensions."""
    return {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **fields}


def named(name: str, config: Object) -> Object:
    """Returns an extension with its configuration."""
    return {"name": name, "typed_config": config}


def certificate(cert: str, key: str) -> Object:
    """Returns a certificate, given the paths of its file and its key's."""
    return {"certificate_chain": {"filename": cert}, "private_key": {"filename": key}}


def seconds(milliseconds: int) -> str:
    """Returns a duration."""
    return f"{milliseconds / 1000:g}s"
