"""Files of fronts for tests."""

from pathlib import Path

from jigsaw_triton.front.build import build_front
from jigsaw_triton.front.model import Front
from jigsaw_triton.spec.load import load_front

FRONT = """\
apiVersion: jigsaw-triton/v1
kind: Front
spec:
  listen: {address: 0.0.0.0, http: 8000, grpc: 8001, metrics: 8002}
  cells:
    - name: cell1
      http: 10.0.0.1:8000
      grpc: 10.0.0.1:8001
      metrics: 10.0.0.1:8002
      weights: {traffic: 3, faces: 1}
    - name: cell2
      http: 10.0.0.2:8000
      grpc: 10.0.0.2:8001
      weights: {traffic: 1}
      standby: {http: "10.0.0.3:8000", grpc: "10.0.0.3:8001"}
"""


def front(folder: Path, text: str = FRONT) -> Front:
    """Returns the front of a file's text."""
    (folder / "front.yaml").write_text(text)
    return build_front(load_front(folder))
