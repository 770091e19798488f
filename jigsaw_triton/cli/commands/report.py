"""`jigsaw-triton report`: writes a report as one HTML file."""

from pathlib import Path

import click

from jigsaw_triton.api.observed import ObservedDeployment
from jigsaw_triton.api.reports import deployment_report, result_report
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output, write_file


@options.command("report", examples=("report -O deployment.html", "report simulation.json -O simulation.html"))
@click.argument("result", metavar="[RESULT]", required=False, type=click.Path(path_type=Path))
@options.out_file("Write the report to this file.  [default: report.html]")
@options.state()
def command(out: Output, result: Path | None, out_path: Path | None, state: Path | None) -> None:
    """Write a report about the deployment, or about a result, as one HTML file that needs no other.

    Without a RESULT, the report has the deployment's plan, GPUs, graphs, load, servers, changes, events and profiles.
    RESULT is the output of `simulate`, `evaluate rehearse` or `evaluate ablation` with -o json.
    """
    path = out_path if out_path is not None else Path("report.html")
    with out.working("writing the report"):
        text = result_report(result) if result is not None else deployment_report(ObservedDeployment(state))
    write_file(path, text)
    out.result({"file": str(path)}, f"wrote {path}")
