import socket
from collections.abc import Mapping

import pytest

from jigsaw_triton.servers import names
from jigsaw_triton.servers.names import Names, resolve


def addresses(
    monkeypatch: pytest.MonkeyPatch, *looks: Mapping[str, set[str]], known: Mapping[str, str] | None = None
) -> list[str]:
    """Returns the address of host `h` after each look, given what names stand for then."""
    found, of = [], Names(known)
    for look in looks:
        monkeypatch.setattr(names, "resolve", lambda host, look=look: frozenset(look.get(host, ())))
        of.look(["h", "10.0.0.1"])
        found.append(of.address("h"))
    return found


def test_a_host_keeps_its_name_until_its_address_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[set[str]] = [{"1.1.1.1"}, {"1.1.1.1"}, {"2.2.2.2"}, {"2.2.2.2", "3.3.3.3"}, {"4.4.4.4"}]
    assert addresses(monkeypatch, *({"h": look} for look in looks)) == ["h", "h", "2.2.2.2", "2.2.2.2", "4.4.4.4"]


def test_several_addresses_in_turn_are_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"1.1.1.1", "2.2.2.2"}
    assert addresses(monkeypatch, {"h": both}, {"h": {"2.2.2.2"}}, {"h": {"1.1.1.1"}}) == ["h", "h", "h"]


def test_a_name_that_cannot_be_resolved_for_a_while_keeps_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses(monkeypatch, {"h": {"1.1.1.1"}}, {}, {"h": {"1.1.1.1"}}) == ["h", "h", "h"]
    assert addresses(monkeypatch, {"h": {"1.1.1.1"}}, {"h": {"2.2.2.2"}}, {}) == ["h", "2.2.2.2", "2.2.2.2"]


def test_a_name_that_could_not_be_resolved_at_first_gets_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses(monkeypatch, {}, {"h": {"::1", "1.1.1.1"}}) == ["h", "1.1.1.1"]


def test_every_name_can_be_replaced_by_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[set[str]] = [{"3.3.3.3", "2.2.2.2"}, set(), {"3.3.3.3", "1.1.1.1"}, {"3.3.3.3"}]
    found = addresses(monkeypatch, *({"h": look} for look in looks), known={})
    assert found == ["2.2.2.2", "2.2.2.2", "1.1.1.1", "3.3.3.3"]
    assert addresses(monkeypatch, {}, {"h": {"2.2.2.2"}}, known={"h": "1.1.1.1"}) == ["1.1.1.1", "2.2.2.2"]


def test_addresses_come_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("localhost") & {"127.0.0.1", "::1"}
    assert resolve("no..host") == frozenset()

    def fails(*arguments: object, **options: object) -> None:
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert resolve("localhost") == frozenset()
