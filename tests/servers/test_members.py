from jigsaw_triton.servers.members import Member, leaders, newest


def member(pid: int, started: int, server: str = "proxy", *, leads: bool = True) -> Member:
    return Member(pid, started, server, leads, "")


def test_the_leader_of_a_server_is_its_oldest_process_and_the_newest_is_the_one_after_a_reload() -> None:
    found = [member(2, 10), member(1, 20), member(3, 30, leads=False), member(4, 40, "other")]
    assert leaders(found)["proxy"].pid == 2
    process = newest(found, "proxy")
    assert process is not None and process.pid == 1


def test_a_server_without_a_process_has_no_newest_one() -> None:
    assert newest([member(1, 10, leads=False)], "proxy") is None
