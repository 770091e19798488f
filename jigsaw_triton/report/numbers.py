"""Writes numbers as a reader wants them."""

_MOST_PERCENT = 9.995


def number(value: float) -> str:
    """Returns a number with three digits, and whole from 100 on: `0.031`, `12.5`, `1,480`."""
    return f"{value:,.0f}" if 99.95 <= abs(value) < 1e9 else f"{value:.3g}"


def clock(seconds: float) -> str:
    """Returns a time of a run as hours, minutes and seconds: `1:02:03`."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def percent(share: float) -> str:
    """Returns a share in percent: `0.4%`, `12.5%`, `over 999%`."""
    return f"{share:.1%}" if share < _MOST_PERCENT else "over 999%"
