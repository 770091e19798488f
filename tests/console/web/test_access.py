import pytest

from jigsaw_triton.console.web import access
from jigsaw_triton.console.web.access import SESSION_S, TOKEN_S, Access, same


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_token_opens_the_console_once() -> None:
    opened = Access()
    token = opened.new_token()
    cookie = opened.redeem(token)
    assert cookie is not None
    assert opened.session(cookie) is not None
    assert opened.redeem(token) is None


def test_a_wrong_token_and_a_wrong_cookie_open_nothing() -> None:
    opened = Access()
    opened.new_token()
    assert opened.redeem("") is None
    assert opened.redeem("x\udc80") is None
    assert opened.session("") is None


def test_a_token_and_a_session_end() -> None:
    clock = Clock()
    opened = Access(clock=clock)
    late, token = opened.new_token(), opened.new_token()
    cookie = opened.redeem(token)
    assert cookie is not None
    clock.now_s = TOKEN_S
    assert opened.redeem(late) is None
    clock.now_s = SESSION_S - 1
    assert opened.session(cookie) is not None
    clock.now_s = SESSION_S
    assert opened.session(cookie) is None


def test_sessions_have_tokens_of_their_own_and_end_when_they_are_closed() -> None:
    opened = Access()
    first, second = opened.redeem(opened.new_token()), opened.redeem(opened.new_token())
    assert first is not None
    assert second is not None
    one, other = opened.session(first), opened.session(second)
    assert one is not None
    assert other is not None
    assert not same(one.csrf, other.csrf)
    opened.log_out(first)
    assert opened.session(first) is None
    assert opened.session(second) == other


def test_only_the_password_opens_a_console_that_has_one() -> None:
    opened = Access("correct horse battery")
    assert opened.has_password
    assert opened.log_in("wrong") is None
    cookie = opened.log_in("correct horse battery")
    assert cookie is not None
    assert opened.session(cookie) is not None
    assert Access().log_in("") is None


def test_the_latest_of_very_many_tokens_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_MOST", 2)
    opened = Access()
    first, second, third = (opened.new_token() for _ in range(3))
    assert opened.redeem(first) is None
    assert opened.redeem(second) is not None
    assert opened.redeem(third) is not None
