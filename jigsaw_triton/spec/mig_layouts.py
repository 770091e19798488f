"""Reads and writes MIG layouts of GPUs, in this tool's format and in mig-parted's, which the GPU Operator also uses.

mig-parted's format is defined by `api/spec/v1` and the README of its repository; its `device-filter` takes PCI device
ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field

from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.spec.cluster_schema import LIMIT_GPUS
from jigsaw_triton.spec.entries import API_VERSION, Entry
from jigsaw_triton.spec.files import load_text
from jigsaw_triton.spec.source import Path, Report, SourceMap
from jigsaw_triton.spec.validated import validated
from jigsaw_triton.spec.words import nearest, shown
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES, parse_yaml

KIND = "MigLayouts"
EXPORTED = "current"
"""Name of the configuration in files that are exported in mig-parted's format."""

Index = Annotated[int, Field(ge=0, lt=LIMIT_GPUS)]


def _listed(value: Any) -> Any:
    """Turns `all` into None; an empty value becomes text, so that validation refuses it."""
    return None if value == "all" else "nothing" if value is None else value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Gpu(Entry):
    index: Index
    layout: list[str] = Field(max_length=16, examples=[["3g@0", "3g@4"]])


class _Spec(Entry):
    gpus: list[_Gpu] = Field(min_length=1, examples=[[{"index": 0, "layout": ["3g@0", "3g@4"]}]])


class _Own(Entry):
    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    kind: Literal["MigLayouts"] = Field(examples=[KIND])
    spec: _Spec


class _PartedGpus(Entry):
    devices: Annotated[list[Index] | None, BeforeValidator(_listed)] = Field(examples=["all"])
    device_filter: Annotated[list[str], BeforeValidator(_one_or_more)] = Field(default=[], alias="device-filter")
    enabled: bool = Field(alias="mig-enabled", examples=[True])
    mig_devices: dict[str, Annotated[int, Field(ge=0, le=16)]] = Field(default={}, alias="mig-devices")


class _Parted(Entry):
    version: Literal["v1"] = Field(examples=["v1"])
    configs: dict[str, list[_PartedGpus]] = Field(alias="mig-configs", min_length=1)


@dataclass(frozen=True, slots=True)
class LayoutEntry:
    """The layout that some GPUs should have.

    Attributes:
        where: Location of the entry, as `file:line`.
        indices: Indices of the GPUs; None for all.
        filters: PCI device ids (`0x20B010DE`) of the GPUs that are meant; empty for any.
        enabled: True if MIG should be enabled.
        pieces: Slices: `3g@4` at a given start, `3g` at any, or `3g.40gb` by the board's own profile name.
    """

    where: str
    indices: tuple[int, ...] | None
    filters: tuple[str, ...]
    enabled: bool
    pieces: tuple[str, ...]


def load_layouts(path: str, config: str | None = None) -> tuple[LayoutEntry, ...]:
    """Reads a layout file of either format.

    Args:
        path: Path of the file; `-` is standard input.
        config: Name of one of mig-parted's configurations; None if the file has only one.

    Raises:
        SpecError: The file is wrong, or it does not have the configuration.
    """
    parsed = parse_yaml(load_text(path, limit_bytes=LIMIT_BYTES), path)
    report = Report(parsed.source, parsed.problems)
    report.raise_if_any()
    if isinstance(parsed.data, dict) and "mig-configs" in parsed.data:
        name, chosen = _chosen(validated(_Parted, parsed.data, report), config, path)
        return tuple(
            _parted(entry, _where(parsed.source, ("mig-configs", name, number))) for number, entry in enumerate(chosen)
        )
    if config is not None:
        raise SpecError([Diagnostic("--config", 0, f"{path} has no configurations", "omit this option")])
    own = validated(_Own, parsed.data, report)
    seen: set[int] = set()
    for number, gpu in enumerate(own.spec.gpus):
        if gpu.index in seen:
            report.add(("spec", "gpus", number), f"GPU {gpu.index} is listed twice", "keep one layout for it")
        seen.add(gpu.index)
    report.raise_if_any()
    return tuple(
        LayoutEntry(_where(parsed.source, ("spec", "gpus", number)), (gpu.index,), (), True, tuple(gpu.layout))
        for number, gpu in enumerate(own.spec.gpus)
    )


def layouts_yaml(layouts: Mapping[int, Iterable[object]]) -> str:
    """Formats layouts in this tool's format.

    Args:
        layouts: GPU index -> placements.
    """
    gpus = [{"index": index, "layout": [str(place) for place in layout]} for index, layout in sorted(layouts.items())]
    return _yaml({"apiVersion": API_VERSION, "kind": KIND, "spec": {"gpus": gpus}})


def parted_yaml(layouts: Mapping[int, Sequence[str] | None]) -> str:
    """Formats layouts in mig-parted's format.

    Args:
        layouts: GPU index -> names of MIG profiles, or None if MIG is disabled.
    """
    entries: list[dict[str, Any]] = []
    for index, names in sorted(layouts.items()):
        entry: dict[str, Any] = {"devices": [index], "mig-enabled": names is not None}
        if names is not None:
            entry["mig-devices"] = {name: names.count(name) for name in dict.fromkeys(names)}
        entries.append(entry)
    return _yaml({"version": "v1", "mig-configs": {EXPORTED: entries}})


def _yaml(data: Any) -> str:
    text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120)
    return text


def _chosen(document: _Parted, config: str | None, path: str) -> tuple[str, list[_PartedGpus]]:
    names = list(document.configs)
    if config is None and len(names) == 1:
        return names[0], document.configs[names[0]]
    if config is None:
        hint = f"choose one, for example --config {names[0]}; the file has {', '.join(names)}"
        raise SpecError([Diagnostic("--config", 0, f"{path} has {len(names)} configurations", hint)])
    if config not in document.configs:
        hint = nearest(config, names, "configurations")
        raise SpecError([Diagnostic("--config", 0, f"{path} has no configuration {shown(config)}", hint)])
    return config, document.configs[config]


def _parted(entry: _PartedGpus, where: str) -> LayoutEntry:
    pieces = [name for name, count in entry.mig_devices.items() for _ in range(count)]
    indices = None if entry.devices is None else tuple(entry.devices)
    return LayoutEntry(where, indices, tuple(entry.device_filter), entry.enabled, tuple(pieces))


def _where(source: SourceMap, path: Path) -> str:
    line = source.line(path)
    return f"{source.file}:{line}" if line else source.file
