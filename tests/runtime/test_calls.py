from jigsaw_triton.runtime.calls import Calls


def test_a_call_that_goes_on_for_too_long_is_told_once_and_hangs_until_it_returns() -> None:
    now_s = 0.0
    calls: Calls[str] = Calls(30.0, lambda: now_s)
    quick, slow = calls.begun("quick"), calls.begun("slow")
    now_s = 20.0
    late = calls.begun("late")
    assert calls.ended(quick)
    now_s = 31.0
    assert (calls.overdue(), calls.hanging) == (("slow",), 1)
    assert (calls.overdue(), calls.hanging) == ((), 1)
    assert not calls.ended(slow)
    assert calls.ended(late)
    assert (calls.overdue(), calls.hanging) == ((), 0)
