"""Checks of names and addresses that systemd, Compose or Kubernetes restrict."""

import ipaddress
import re
from collections.abc import Iterable

from jigsaw_triton.errors import InputError
from jigsaw_triton.spec.entries import IMAGE_PATTERN
from jigsaw_triton.spec.words import NAME_PATTERN, shown

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN_LENGTH = 253
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_LISTEN = re.compile(r"(?P<host>[0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[1-9][0-9]{0,4})")
_QUANTITY = re.compile(r"[1-9][0-9]*(Ki|Mi|Gi|Ti)")
_LABEL_HINT = "write lower-case letters, digits and '-', at most 63 in all, with a letter or digit at both ends"
_MOST_PORT = 65535


def check_label(value: str, what: str, *, where: str, hint: str = _LABEL_HINT) -> str:
    """Returns a DNS label, which is what Kubernetes accepts as a name.

    Args:
        value: The name.
        what: Noun for the message, such as `namespace`.
        where: Place of the name in the user's input.
        hint: Advice for another name.

    Raises:
        InputError: The name is no DNS label.
    """
    if not _LABEL.fullmatch(value):
        raise InputError(f"the {what} {shown(value)} is not a DNS label", where=where, hint=hint)
    return value


def check_domain(value: str, what: str, *, where: str) -> str:
    """Returns a DNS name of one or more labels; the first may be `*`.

    Raises:
        InputError: The text is no DNS name.
    """
    labels = value.removeprefix("*.").split(".")
    if len(value) > _DOMAIN_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise InputError(
            f"the {what} {shown(value)} is not a DNS name", where=where, hint="write a name like a.example"
        )
    return value


def check_image(value: str, *, where: str) -> str:
    """Returns the name of a container image.

    Raises:
        InputError: The text is no name of an image.
    """
    if not re.fullmatch(IMAGE_PATTERN, value):
        hint = "write REGISTRY/NAME:TAG, as docker pull takes it"
        raise InputError(f"{shown(value)} is not the name of an image", where=where, hint=hint)
    return value


def check_user(value: str, *, where: str) -> str:
    """Returns the name of a user of the system.

    Raises:
        InputError: useradd would not accept the name.
    """
    if not _USER.fullmatch(value):
        hint = "write lower-case letters, digits, '-' and '_', at most 31, and first a letter"
        raise InputError(f"{shown(value)} is not the name of a user", where=where, hint=hint)
    return value


def check_node(value: str, *, where: str) -> str:
    """Returns the name of a node of a cluster.yaml.

    Raises:
        InputError: A cluster.yaml cannot have the name.
    """
    if not re.fullmatch(NAME_PATTERN, value):
        hint = "write letters, digits, '-' and '_', at most 64, and first a letter"
        raise InputError(f"{shown(value)} is not the name of a node", where=where, hint=hint)
    return value


def check_listen(value: str, *, where: str) -> str:
    """Returns an address and port to listen on.

    Raises:
        InputError: The text is no IP address with a port.
    """
    match = _LISTEN.fullmatch(value)
    if match is None or int(match["port"]) > _MOST_PORT or not _is_address(match["host"].strip("[]")):
        hint = "write ADDRESS:PORT, such as 0.0.0.0:7440 or [::]:7440"
        raise InputError(f"{shown(value)} is not an IP address with a port", where=where, hint=hint)
    return value


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_quantity(value: str, *, where: str) -> str:
    """Returns a size as Kubernetes writes it.

    Raises:
        InputError: The text is no size.
    """
    if not _QUANTITY.fullmatch(value):
        raise InputError(f"{shown(value)} is not a size", where=where, hint="write a number and Mi, Gi or Ti: 20Gi")
    return value


def labels_of(names: Iterable[str], *, where: str) -> dict[str, str]:
    """Returns a DNS label for each name of a graph, in which capitals are small and `_` is `-`.

    Raises:
        InputError: Two names have the same label.
    """
    found: dict[str, str] = {}
    for name in names:
        label = name.lower().replace("_", "-")[:50].rstrip("-")
        if label in found.values():
            other = next(key for key, value in found.items() if value == label)
            hint = "rename one of them in metadata.name"
            raise InputError(f"the graphs {other} and {name} would have the same name {label}", where=where, hint=hint)
        found[name] = label
    return found
