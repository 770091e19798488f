"""HAProxy's statistics in words."""

import pytest

from jigsaw_triton.servers.transport.health import parse_health

HEAD = "# pxname,svname,status,check_status,last_chk,"


def stat(*rows: str) -> str:
    return "\n".join((HEAD, *rows, ""))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("UP,L7OK,", ""),
        ("UP 1/2,* L4TOUT,", ""),
        ("UP,INI,", ""),
        ("DOWN,L4CON,Connection refused", "refuses the connection"),
        ("DOWN,* L6TOUT,", "does not answer"),
        ("DOWN 1/2,L7OK,", "fails its health check (L7OK: )"),
        ("MAINT (resolution),,", "has a host name that was unknown when the transport last started or reloaded"),
        ("DOWN,SOCKERR,no port", "fails its health check (SOCKERR: no port)"),
    ],
)
def test_a_status_of_haproxy_becomes_the_reason_why_a_node_cannot_be_called(row: str, reason: str) -> None:
    assert parse_health(stat(f"node.a,a,{row},")) == {"a": reason}


def test_each_node_has_a_reason() -> None:
    assert parse_health(stat("node.a,a,UP,L7OK,,", "node.b,b,DOWN,L4TOUT,,")) == {"a": "", "b": "does not answer"}
    assert parse_health(stat()) == {}
    assert parse_health("") == {}
