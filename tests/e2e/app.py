"""A small application on disk: words are cut from a line, then each is measured; what it answers is known exactly."""

import csv
from pathlib import Path

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {{name: words}}
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
        - {{name: slow, accuracy: 1.0, template: python, artifacts: {{model.py: square.py}}, parameters: {{sleep_ms: 4}}}}
        - {{name: fast, accuracy: 0.9, template: python, artifacts: {{model.py: square.py}}, parameters: {{sleep_ms: 1}}}}
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

TOTAL = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {"TOTAL": inputs["SQUARES"].sum(axis=1)}
"""

HEADER = "gpu,task,variant,slice,instances,batch,latency_p50_ms,latency_p95_ms,latency_p99_ms,throughput_rps,memory_mib,source"


def write_application(folder: Path, *, target: str = "auto", accuracy: float = 0.95) -> Path:
    """Writes graph.yaml, its models and profiles.csv; returns the folder.

    Args:
        folder: New.
        target: Of the graph.
        accuracy: 0.95 asks for the slow squares, 0.85 allows the fast ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.yaml").write_text(GRAPH.format(target=target, accuracy=accuracy))
    for name, text in (("split", SPLIT), ("square", SQUARE), ("total", TOTAL)):
        (folder / f"{name}.py").write_text(text)
    with (folder / "profiles.csv").open("w", newline="") as file:
        file.write(HEADER + "\n")
        rows = csv.writer(file, lineterminator="\n")
        for kind, speed in (("1g", 1.0), ("2g", 1.6), ("3g", 2.2), ("7g", 4.0)):
            for task, variant, latency_ms in (
                ("split", "plain", 2.0),
                ("square", "slow", 8.0),
                ("square", "fast", 4.0),
                ("total", "plain", 2.0),
            ):
                for batch in (1, 4, 8):
                    ms = latency_ms * (1 + batch / 8) / speed
                    rows.writerow(["cpu", task, variant, kind, 1, batch, ms, ms, ms, batch * 1000 / ms, 60, "assumed"])
    return folder
