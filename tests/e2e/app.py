"""A small application on disk: it splits numbers into rows, squares each and adds them up, with exact answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {{name: {name}}}
spec:
  target: {target}
  slo: {{latency_ms: 2000, percentile: 99, accuracy: {accuracy}}}
  inputs:
    NUMBERS: {{dtype: INT64, shape: [-1]}}
  outputs:
    SQUARES: square.SQUARE
    TOTAL: total.TOTAL
  tasks:
    split:
      inputs: {{NUMBERS: inputs.NUMBERS}}
      outputs:
        ROWS: {{dtype: INT64, shape: [-1, 1]}}
      variants:
        - {{name: plain, accuracy: 1.0, template: python, artifacts: {{model.py: split.py}}, yields: {{ROWS: 4}}}}
    square:
      for_each: split.ROWS
      inputs: {{NUMBER: split.ROWS}}
      outputs:
        SQUARE: {{dtype: INT64, shape: [1]}}
      variants:
        - name: slow
          accuracy: 1.0
          template: python
          artifacts: {{model.py: square.py}}
          parameters: {{sleep_ms: 4}}
        - name: fast
          accuracy: 0.9
          template: python
          artifacts: {{model.py: square.py}}
          parameters: {{sleep_ms: 1}}
    total:
      inputs: {{SQUARES: square.SQUARE}}
      outputs:
        TOTAL: {{dtype: INT64, shape: [1]}}
      variants:
        - {{name: plain, accuracy: 1.0, template: python, artifacts: {{model.py: total.py}}}}
"""

SPLIT = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {"ROWS": inputs["NUMBERS"][..., None]}
"""

SQUARE = """\
import time


class Model:
    def __init__(self, folder, parameters, threads):
        self.sleep_s = float(parameters["sleep_ms"]) / 1e3

    def __call__(self, inputs):
        time.sleep(self.sleep_s)
        return {"SQUARE": inputs["NUMBER"] ** 2}
"""

BROKEN = SQUARE.replace("        self.sleep_s", '        raise RuntimeError("no such weights")\n        self.sleep_s')
"""Source of a square model that fails to load."""

DEADLY = SQUARE.replace("import time", "import os\nimport signal\nimport time").replace(
    "        self.sleep_s", "        os.kill(os.getppid(), signal.SIGKILL)\n        self.sleep_s"
)
"""Source of a square model that kills its server while it loads."""

POISON = -666
POISONABLE = SQUARE.replace("import time", "import os\nimport signal\nimport time").replace(
    "        time.sleep",
    f'        if (inputs["NUMBER"] == {POISON}).any():\n'
    "            os.kill(os.getppid(), signal.SIGKILL)\n"
    "        time.sleep",
)
"""Source of a square model that kills its server when it receives one number."""

TOTAL = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {"TOTAL": inputs["SQUARES"].sum(axis=1)}
"""

SPEEDS = {"1g": 1.0, "2g": 1.6, "3g": 2.2, "7g": 4.0}
"""Claimed speed of each slice relative to 1g."""


def gated(gate: Path) -> str:
    """Returns the source of a square model that does not finish loading until the file `gate` exists."""
    wait = f'        while not os.path.exists("{gate}"):\n            time.sleep(0.02)\n        self.sleep_s'
    return SQUARE.replace("import time", "import os\nimport time").replace("        self.sleep_s", wait)


def dying(once: Path) -> str:
    """Returns the source of a square model that kills its server while it loads, if it can remove the file `once`."""
    kill = (
        f'        if os.path.exists("{once}"):\n            os.unlink("{once}")\n'
        "            os.kill(os.getppid(), signal.SIGKILL)\n        self.sleep_s"
    )
    return SQUARE.replace("import time", "import os\nimport signal\nimport time").replace("        self.sleep_s", kill)


def write_application(
    folder: Path,
    *,
    name: str = "words",
    target: str = "auto",
    accuracy: float = 0.95,
    square: str = SQUARE,
    square_ms: float = 20.0,
    slices: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Writes graph.yaml, its models and profiles.csv. Returns the folder.

    Args:
        folder: Folder of the application, created if missing. Existing files are replaced.
        name: Name of the graph.
        target: Target of the graph.
        accuracy: Accuracy SLO: 0.95 requires the slow square variant, 0.85 allows the fast one.
        square: Source of the square model.
        square_ms: Milliseconds that profiles.csv claims for one slow square on 1g. With 20, one worker carries 46
            requests per second. The claim is more than the model takes, so that a load that two cores can bear requires
            several workers.
        slices: Profiled slices by task, for tasks that are not profiled on all of SPEEDS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.yaml").write_text(GRAPH.format(name=name, target=target, accuracy=accuracy))
    for file, text in (("split", SPLIT), ("square", square), ("total", TOTAL)):
        (folder / f"{file}.py").write_text(text)
    claims = (
        ("split", "plain", 2.0),
        ("square", "slow", square_ms),
        ("square", "fast", square_ms / 2),
        ("total", "plain", 2.0),
    )
    rows = [
        claim(task, variant, kind, batch, latency_ms)
        for task, variant, latency_ms in claims
        for kind in (slices or {}).get(task, SPEEDS)
        for batch in (1, 4, 8)
    ]
    (folder / "profiles.csv").write_text(write_profiles(rows))
    return folder


def claim(task: str, variant: str, kind: str, batch: int, latency_ms: float) -> ProfileRow:
    """Returns a row of profiles.csv, given the milliseconds of one call on 1g."""
    ms = latency_ms * (1 + batch / 8) / SPEEDS[kind]
    return ProfileRow(ProfileKey("cpu", task, variant, kind, 1, batch), ms, ms, ms, batch * 1000 / ms, 60, "assumed")
