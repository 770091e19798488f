"""`jigsaw-triton mig`: lists and changes the MIG instances of this machine's GPUs by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.mig_layouts import read_entries, wanted_layouts
from jigsaw_triton.cli.inputs.mig_machine import FoundGpu, MigMachine, mig_machine
from jigsaw_triton.cli.io.output import Output, listed, write_file
from jigsaw_triton.cli.views.mig import drawn, gpu_json, gpus_table, rearrangement_json, rearrangements_table
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import Layout
from jigsaw_triton.gpus.nvml_texts import calls_of
from jigsaw_triton.gpus.rearrangement import Rearrangement, rearrangement
from jigsaw_triton.gpus.reported import why_uncut
from jigsaw_triton.spec.mig_layouts import layouts_yaml, parted_yaml

_NOT_IN_STATE = 4
FORMATS = ("jigsaw-triton", "mig-parted")

_FILE = click.argument("file", metavar="[FILE]", required=False, type=click.Path())
_CONFIG = options.option(
    "--config", metavar="NAME", help="Configuration to use from a mig-parted file that has several."
)
_LAYOUT = options.option(
    "--layout", metavar="SLICES", help="Layout instead of a file: 3g@0,3g@4; 3g,1g for any placement; none."
)
_GPU = options.option(
    "--gpu",
    "gpus",
    metavar="INDEX",
    type=click.IntRange(min=0),
    multiple=True,
    help="GPU to apply --layout to; may be repeated.",
)


@click.group("mig")
def command() -> None:
    """List and change the MIG instances of this machine's GPUs by hand.

    This needs NVIDIA's driver. Deployments create and destroy their own instances; these commands are for the others.
    """


@options.command("list", examples=("mig list", "mig list -o json"))
@options.state()
def _list(out: Output, state: Path | None) -> None:
    """List GPUs, their MIG mode, and their instances with owner and processes."""
    with mig_machine(deployment_paths(state)) as machine:
        gpus = machine.gpus()
    cut = {gpu.board.name for gpu in gpus if gpu.board is not None and gpu.reported.cut}
    for gpu in gpus:
        if gpu.board is not None and (reason := why_uncut(gpu.reported, gpu.board, cut)):
            out.warn(f"GPU {gpu.reported.index} is one whole slice: {reason}")
    out.result({"gpus": [gpu_json(gpu) for gpu in gpus]}, gpus_table(gpus), *drawn(gpus, out.width))


@options.command("enable", examples=("mig enable 0",))
@click.argument("gpu", metavar="GPU", type=click.IntRange(min=0))
@options.state()
def _enable(out: Output, gpu: int, state: Path | None) -> int | None:
    """Enable MIG mode on one idle GPU.

    On Ampere boards this needs a reset of the GPU; the command exits with 4 while the reset is pending. On later boards
    it takes effect at once, and is lost when the driver is unloaded. No command here disables MIG mode.
    """
    with mig_machine(deployment_paths(state)) as machine:
        mode = machine.driver.enable(gpu)
    data = {"gpu": gpu, "mig": mode.current, "pending": mode.pending}
    if mode.current:
        out.result(data, f"MIG is on for GPU {gpu}")
        return None
    out.result(
        data,
        f"MIG will be on for GPU {gpu} after a reset: run `nvidia-smi --gpu-reset -i {gpu}` while nothing is on the "
        "GPU, monitoring agents included, or reboot the machine",
    )
    return _NOT_IN_STATE


@options.command(
    "apply",
    examples=(
        "mig apply --layout 3g@0,3g@4 --gpu 0",
        "mig apply layouts.yaml --dry-run",
        "mig apply mig-parted.yaml --config all-1g.10gb",
    ),
)
@_FILE
@_CONFIG
@_LAYOUT
@_GPU
@options.option("--others", is_flag=True, help="Also destroy unwanted instances that `mig apply` did not create.")
@options.option("--dry-run", is_flag=True, help="Print the NVML calls, and change nothing.")
@options.state()
def _apply(
    out: Output,
    file: str | None,
    config: str | None,
    layout: str | None,
    gpus: tuple[int, ...],
    others: bool,
    dry_run: bool,
    state: Path | None,
) -> None:
    """Apply the layouts of a file, or one layout, to GPUs.

    Instances that the layout has at the same place stay and keep running. Instances of a deployment and instances in
    use are never destroyed; instances that others created are destroyed only with --others. FILE has the format of this
    tool or of mig-parted.
    """
    entries = read_entries(file, config, layout, gpus)
    with mig_machine(deployment_paths(state), changes=not dry_run) as machine:
        if not dry_run:
            machine.instances.recover()
        present = machine.gpus()
        wanted = wanted_layouts(entries, present)
        changes = _changes(present, wanted)
        _check_owners(present, changes, others=others)
        reported = {gpu.id: gpu.reported for gpu in present}
        calls = [call for change in changes for call in calls_of(change, reported[change.gpu])]
        data = {"gpus": [rearrangement_json(change) for change in changes], "dry_run": dry_run, "calls": calls}
        if dry_run:
            out.result(data, rearrangements_table(changes), *calls)
            return
        with out.working("changing MIG"), machine.adopted(i for change in changes for i in change.destroy):
            machine.instances.rearrange(changes)
        _check(machine, wanted)
    out.result(data, rearrangements_table(changes))


@options.command("assert", examples=("mig assert layouts.yaml", "mig assert --layout 7g --gpu 0 --gpu 1"))
@_FILE
@_CONFIG
@_LAYOUT
@_GPU
@options.state()
def _assert(
    out: Output,
    file: str | None,
    config: str | None,
    layout: str | None,
    gpus: tuple[int, ...],
    state: Path | None,
) -> int | None:
    """Check that GPUs have the layouts of a file, or one layout. Exits with 4 if they differ, and changes nothing."""
    entries = read_entries(file, config, layout, gpus)
    with mig_machine(deployment_paths(state)) as machine:
        present = machine.gpus()
        changes = _changes(present, wanted_layouts(entries, present))
    ok = all(change.empty for change in changes)
    data = {"ok": ok, "gpus": [rearrangement_json(change) for change in changes]}
    if ok:
        out.result(data, f"GPU {listed([str(change.gpu.index) for change in changes])}: the layout is as wanted")
        return None
    out.result(data, rearrangements_table(changes))
    return _NOT_IN_STATE


@options.command("export", examples=("mig export -O layouts.yaml", "mig export --format mig-parted"))
@options.option(
    "--format", "form", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="Format of the file."
)
@options.out_file("File to write.  [default: standard output]")
@options.state()
def _export(out: Output, form: str, out_path: Path | None, state: Path | None) -> None:
    """Write the layouts of all GPUs to a file that `mig apply` and `mig assert` read.

    The format of mig-parted has no placements; the format of this tool leaves out GPUs without MIG.
    """
    with mig_machine(deployment_paths(state)) as machine:
        gpus = machine.gpus()
    text = layouts_yaml(_layouts(gpus)) if form == FORMATS[0] else parted_yaml(_names(gpus))
    if out_path is not None:
        write_file(out_path, text)
        out.note(f"wrote {out_path}")
    elif out.json:
        out.result({"format": form, "gpus": {str(index): list(map(str, at)) for index, at in _layouts(gpus).items()}})
    else:
        out.raw(text)


for leaf in (_list, _enable, _apply, _assert, _export):
    command.add_command(leaf)


def _layouts(gpus: Sequence[FoundGpu]) -> Mapping[int, Layout]:
    return {gpu.reported.index: gpu.layout for gpu in gpus if gpu.reported.cut}


def _names(gpus: Sequence[FoundGpu]) -> dict[int, list[str] | None]:
    """Returns the profile names of each GPU that supports MIG; None if its MIG mode is off."""
    return {
        gpu.reported.index: [i.profile for i in gpu.instances if not i.instance.half_made] if gpu.reported.cut else None
        for gpu in gpus
        if gpu.reported.mode is not None
    }


def _changes(gpus: Sequence[FoundGpu], wanted: Mapping[int, Layout]) -> list[Rearrangement]:
    return [
        rearrangement(gpu.id, [i.instance for i in gpu.instances], wanted[gpu.reported.index])
        for gpu in gpus
        if gpu.reported.index in wanted
    ]


def _check_owners(gpus: Sequence[FoundGpu], changes: Sequence[Rearrangement], *, others: bool) -> None:
    """Checks that the changes destroy only instances that they may destroy.

    Raises:
        StateError: A change would destroy another instance.
    """
    found = {i.instance.uuid: i for gpu in gpus for i in gpu.instances}
    for change in changes:
        for instance in change.destroy:
            owner, where = found[instance.uuid].owner, f"{instance.placement} of GPU {change.gpu.index}"
            if owner == "deployment":
                hint = "change it with `jigsaw-triton deploy`, or end it with `jigsaw-triton down`"
                raise StateError("this instance belongs to the deployment", where=where, hint=hint)
            if owner == "others" and not others:
                hint = "keep it in the layout, or add --others to destroy it"
                raise StateError("this instance was not created by `mig apply`", where=where, hint=hint)


def _check(machine: MigMachine, wanted: Mapping[int, Layout]) -> None:
    """Reads the layouts back.

    Raises:
        StateError: A layout is not the wanted one.
    """
    wrong = [change for change in _changes(machine.gpus(), wanted) if not change.empty]
    if wrong:
        raise StateError(
            f"the layout of GPU {listed([str(change.gpu.index) for change in wrong])} has changed again",
            hint="another program changes MIG at the same time; `jigsaw-triton doctor` may find it",
        )
