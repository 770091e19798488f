from pathlib import Path

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.gpus.model import Placement
from jigsaw_triton.spec.mig_layouts import LayoutEntry, layouts_yaml, load_layouts, parted_yaml

OWN = """\
apiVersion: jigsaw-triton/v1
kind: MigLayouts
spec:
  gpus:
    - {index: 0, layout: [3g@0, 3g@4]}
    - {index: 2, layout: []}
"""

PARTED = """\
version: v1
mig-configs:
  off:
    - devices: all
      mig-enabled: false
  some:
    - device-filter: "0x20B010DE"
      devices: all
      mig-enabled: true
      mig-devices:
        "1g.5gb": 2
        "3g.20gb": 1
    - device-filter: ["0x20B210DE", "0x20B510DE"]
      devices: [0, 3]
      mig-enabled: true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "layouts.yaml"


def test_the_tools_own_format_is_read(file: Path) -> None:
    file.write_text(OWN)
    assert load_layouts(str(file)) == (
        LayoutEntry(f"{file}:5", (0,), (), True, ("3g@0", "3g@4")),
        LayoutEntry(f"{file}:6", (2,), (), True, ()),
    )


def test_the_format_of_mig_parted_is_read(file: Path) -> None:
    file.write_text(PARTED)
    assert load_layouts(str(file), "off") == (LayoutEntry(f"{file}:4", None, (), False, ()),)
    assert load_layouts(str(file), "some") == (
        LayoutEntry(f"{file}:7", None, ("0x20B010DE",), True, ("1g.5gb", "1g.5gb", "3g.20gb")),
        LayoutEntry(f"{file}:13", (0, 3), ("0x20B210DE", "0x20B510DE"), True, ()),
    )


def test_written_layouts_can_be_read_back(file: Path) -> None:
    file.write_text(layouts_yaml({2: [], 0: [Placement(0, "3g"), Placement(4, "3g")]}))
    assert [(e.indices, e.pieces) for e in load_layouts(str(file))] == [((0,), ("3g@0", "3g@4")), ((2,), ())]
    file.write_text(parted_yaml({1: ["1g.10gb", "3g.40gb", "1g.10gb"], 0: None, 3: []}))
    assert [(e.indices, e.enabled, e.pieces) for e in load_layouts(str(file))] == [
        ((0,), False, ()),
        ((1,), True, ("1g.10gb", "1g.10gb", "3g.40gb")),
        ((3,), True, ()),
    ]


@pytest.mark.parametrize(
    ("text", "config", "line", "message", "hint"),
    [
        (OWN, "some", 0, "has no configurations", "omit this option"),
        (PARTED, None, 0, "has 2 configurations", "choose one, for example --config off; the file has off, some"),
        (PARTED, "sum", 0, "has no configuration 'sum'", "configurations: off, some"),
        (OWN.replace("MigLayouts", "Cluster"), None, 2, "kind is 'Cluster'", "it must be MigLayouts"),
        (OWN.replace("index: 2", "index: 0"), None, 6, "GPU 0 is listed twice", "keep one layout"),
        (OWN.replace("index: 2", "index: -2"), None, 6, "spec.gpus[1].index is -2", "at least 0"),
        (OWN.replace("index: 2", "indx: 2"), None, 6, "unknown key 'indx'", "did you mean 'index'?"),
        (PARTED.replace("version: v1", "version: v2"), "some", 1, "version is 'v2'", "it must be v1"),
        (PARTED.replace("devices: all\n      mig-e", "mig-e", 1), "some", 4, "missing key 'devices'", "all"),
        (PARTED.replace("devices: [0, 3]", "devices: some"), "some", 14, "devices must be a list, not 'some'", "all"),
        (PARTED.replace('"1g.5gb": 2', '"1g.5gb": -2'), "some", 11, "is -2", "at least 0"),
        (PARTED.replace("mig-enabled: false", "mig-enabled: no"), "off", 5, "must be true or false, not 'no'", "true"),
        ("- 1\n", None, 1, "the document must be a mapping, not a list", "apiVersion"),
    ],
)  # fmt: skip
def test_mistakes_are_reported_with_their_lines(
    file: Path, text: str, config: str | None, line: int, message: str, hint: str
) -> None:
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_layouts(str(file), config)
    found = caught.value.diagnostics
    assert any(d.line == line and message in d.message and hint in d.hint for d in found), found
