"""Sends a strip to the graph with tritonclient: `python client.py [--grpc] [--url HOST:PORT] [FILE]`."""

import argparse
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http

parser = argparse.ArgumentParser(description="Send a strip of digits to the graph.")
parser.add_argument(
    "file", nargs="?", default=Path(__file__).parent / "golden/strip.npy", help=".npy file, UINT8 [8, W]"
)
parser.add_argument("--grpc", action="store_true", help="use gRPC instead of HTTP")
parser.add_argument("--url", help="address of the gateway; default: localhost:8000, or localhost:8001 with --grpc")
arguments = parser.parse_args()

triton = grpc if arguments.grpc else http
client = triton.InferenceServerClient(arguments.url or ("localhost:8001" if arguments.grpc else "localhost:8000"))
strip = np.load(arguments.file)[None]
tensor = triton.InferInput("STRIP", list(strip.shape), "UINT8")
tensor.set_data_from_numpy(strip)
answer = client.infer("digits-strip", [tensor])
for column, digit in zip(answer.as_numpy("COLUMN")[0], answer.as_numpy("DIGIT")[0, :, 0], strict=True):
    print(f"column {column:3}: {digit}")
