"""Sends a digit to the graph with tritonclient: `python client.py [--grpc] [--url HOST:PORT] [FILE]`."""

import argparse
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http

parser = argparse.ArgumentParser(description="Send a digit to the graph.")
parser.add_argument(
    "file", nargs="?", default=Path(__file__).parent / "golden/image.npy", help=".npy file, [8, 8], 0 to 16"
)
parser.add_argument("--grpc", action="store_true", help="use gRPC instead of HTTP")
parser.add_argument("--url", help="address of the gateway; default: localhost:8000, or localhost:8001 with --grpc")
arguments = parser.parse_args()

triton = grpc if arguments.grpc else http
client = triton.InferenceServerClient(arguments.url or ("localhost:8001" if arguments.grpc else "localhost:8000"))
image = np.load(arguments.file).astype(np.float32)[None]
tensor = triton.InferInput("IMAGE", list(image.shape), "FP32")
tensor.set_data_from_numpy(image)
answer = client.infer("digits", [tensor])
digit, scores = answer.as_numpy("DIGIT")[0, 0], answer.as_numpy("SCORES")[0]
print(f"{digit} ({scores[digit]:.0%})")
