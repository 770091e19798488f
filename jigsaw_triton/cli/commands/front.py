"""`jigsaw-triton front`: runs a front over the gateways of cells."""

import os
from pathlib import Path

import click

from jigsaw_triton.api.fronts import FrontFile
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.front import front_view
from jigsaw_triton.errors import StateError
from jigsaw_triton.logs import LogFormat, log_to_stderr


@options.command(
    "front",
    examples=("front cells/front.yaml", "front cells/front.yaml --status", "front front.yaml --http 80 --grpc 81"),
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@options.option("--status", "only_status", is_flag=True, help="Show the state of the front that runs, and return.")
@options.option(
    "--http", variable="JIGSAW_FRONT_HTTP", type=click.IntRange(1, 65535), help="Port for HTTP, instead of the file's."
)
@options.option(
    "--grpc", variable="JIGSAW_FRONT_GRPC", type=click.IntRange(1, 65535), help="Port for gRPC, instead of the file's."
)
@options.option(
    "--metrics",
    variable="JIGSAW_FRONT_METRICS",
    type=click.IntRange(1, 65535),
    help="Port of the front's metrics, instead of the file's.",
)
@options.option("--address", variable="JIGSAW_FRONT_ADDRESS", help="IPv4 address to listen on, instead of the file's.")
@options.log_format()
@options.option(
    "--state",
    variable="JIGSAW_FRONT_STATE",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of the front.  [default: front.state beside FILE]",
)
def command(
    out: Output,
    file: Path,
    only_status: bool,
    http: int | None,
    grpc: int | None,
    metrics: int | None,
    address: str | None,
    log_format: LogFormat,
    state: Path | None,
) -> int | None:
    """Run HAProxy in front of the cells of front.yaml until SIGTERM or Ctrl-C.

    It sends each request, over HTTP or gRPC, to a cell that has the graph ready, by the weights of the file. A cell
    that carries less than its share of the load gets less. Changes of the file take effect within seconds, without a
    lost request. Several fronts may run side by side, each with its own ports or machine.
    """
    front = FrontFile(file, state, http=http, grpc=grpc, metrics=metrics, address=address)
    if only_status:
        status = front.status()
        out.result(status, *front_view(status))
        return None if status["serving"] else StateError.exit_code
    os.umask(0o077)
    log_to_stderr(log_format)
    front.run()
    return None
