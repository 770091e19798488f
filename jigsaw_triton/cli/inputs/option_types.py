"""Types of the values of options."""

import math
from pathlib import Path
from typing import Any, ClassVar

import click

from jigsaw_triton.cli.io.output import Output


class Number(click.FloatRange):
    """A finite number in a range. click itself lets NaN and infinity pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number.

        Raises:
            click.BadParameter: The value is not a number, or not in the range.
        """
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class Share(click.ParamType[float]):
    """A share between 0 and 1, as a number or a percentage: 0.05 or 5%.

    Args:
        bounds: True if 0 and 1 are shares too.
    """

    name = "share"

    def __init__(self, *, bounds: bool = False) -> None:
        self._bounds = bounds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the share.

        Raises:
            click.BadParameter: The value is not a share between 0 and 1.
        """
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = math.nan
        if not (0 < share < 1 or (self._bounds and share in (0, 1))):
            self.fail(f"{value!r} is not a share between 0% and 100%, such as 5%", param, ctx)
        return share


class Duration(click.ParamType[float]):
    """A duration with a unit: 90s, 5m or 1h. A number without a unit is in seconds."""

    name = "duration"

    _SECONDS: ClassVar = {"s": 1.0, "m": 60.0, "h": 3600.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the duration in seconds.

        Raises:
            click.BadParameter: The value is not a duration above 0.
        """
        text = str(value).strip()
        unit = text[-1:] if text[-1:] in self._SECONDS else ""
        try:
            seconds = float(text.removesuffix(unit)) * self._SECONDS.get(unit, 1.0)
        except ValueError:
            seconds = math.nan
        if not (seconds > 0 and math.isfinite(seconds)):
            self.fail(f"{value!r} is not a duration, such as 90s, 5m or 1h", param, ctx)
        return seconds


class OutputType(click.Choice[str]):
    """A form of output. Its value is the `Output` that prints in this form."""

    name = "form"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the `Output`.

        Raises:
            click.BadParameter: There is no such form.
        """
        return value if isinstance(value, Output) else Output(super().convert(value, param, ctx))


class OutPath(click.Path):
    """The path of a file to write.

    Args:
        name: Name of the file in a folder that is given instead: one that exists, or a path that ends with a slash.
            None if a folder stays one.
    """

    def __init__(self, name: str | None) -> None:
        super().__init__(path_type=Path)
        self._file_name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path."""
        path = Path(value)
        is_folder = self._file_name is not None and (str(value).endswith("/") or path.is_dir())
        return path / str(self._file_name) if is_folder else path
