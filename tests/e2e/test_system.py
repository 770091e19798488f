import pytest

from tests.e2e.system import free_ports


def test_workers_of_pytest_never_choose_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        chosen.append(set(free_ports(500)))
    assert chosen[0].isdisjoint(chosen[1])
