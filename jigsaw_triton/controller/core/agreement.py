"""Agreement of the answers of two generations to the same request, in words. Pure."""

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays


def agreement(running: Arrays, new: Arrays) -> str:
    """Returns a phrase for each output that says how far two answers agree.

    Args:
        running: Outputs of the generation that serves, by name.
        new: Outputs of the new generation, by name.
    """
    return "; ".join(f"{name} {_compared(running[name], new[name])}" for name in sorted(running.keys() & new.keys()))


def _compared(running: Array, new: Array) -> str:
    if running.shape != new.shape:
        return f"has shape {list(new.shape)} instead of {list(running.shape)}"
    if np.array_equal(running, new):
        return "is equal"
    if not np.issubdtype(running.dtype, np.floating):
        return f"differs in {np.count_nonzero(running != new)} of {running.size} elements"
    before, after = running.astype(np.float64), new.astype(np.float64)
    scale = float(np.max(np.abs(before))) or 1.0
    text = f"differs by at most {float(np.max(np.abs(after - before))) / scale:.2g} of its largest value"
    if running.shape[-1] > 1:
        same = np.argmax(before, axis=-1) == np.argmax(after, axis=-1)
        text += f", with the same argmax in {np.count_nonzero(same)} of {same.size} rows"
    return text
