"""Sends a frame to the graph with tritonclient: `python client.py [--grpc] [--url HOST:PORT] [IMAGE]`."""

import argparse
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from PIL import Image

parser = argparse.ArgumentParser(description="Read the number plates of a frame and find its faces.")
parser.add_argument("image", nargs="?", default=Path(__file__).parent / "golden/scene.png", help="image of a scene")
parser.add_argument("--grpc", action="store_true", help="use gRPC instead of HTTP")
parser.add_argument("--url", help="address of the gateway; default: localhost:8000, or localhost:8001 with --grpc")
arguments = parser.parse_args()


def shown(box: np.ndarray) -> str:
    """Returns the sides of a box in pixels."""
    return "[" + ", ".join(f"{side:4.0f}" for side in box) + "]"


triton = grpc if arguments.grpc else http
client = triton.InferenceServerClient(arguments.url or ("localhost:8001" if arguments.grpc else "localhost:8000"))
frame = np.asarray(Image.open(arguments.image).convert("RGB"))[None]
tensor = triton.InferInput("FRAME", list(frame.shape), "UINT8")
tensor.set_data_from_numpy(frame)
# Wait for the answer up to 60 s (the timeout is in microseconds). By default the graph's latency SLO is the limit.
# The id lets `jigsaw-triton trace` show where the time went.
answer = client.infer("traffic-cpu", [tensor], request_id="frame", timeout=60_000_000)
for box, text in zip(answer.as_numpy("PLATE_BOXES")[0], answer.as_numpy("TEXT")[0, :, 0], strict=True):
    print(f"plate {shown(box)}  {text.decode()}")
for box, score in zip(answer.as_numpy("FACE_BOXES")[0], answer.as_numpy("FACE_SCORE")[0, :, 0], strict=True):
    print(f"face  {shown(box)}  {score:.3f}")
