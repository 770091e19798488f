"""Blocks of the pages whose readers type commands: what runs them, and what none of the tests runs.

A command block has the language `sh`, and the tests of this folder run it without servers. On the pages of `DEPLOYED`
the tests of `tests/e2e` run the blocks of some languages against a deployment.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[2] / "docs"

PAGES = sorted(
    f"{folder}/{path.name}" for folder in ("concepts", "how-to", "tutorial") for path in (DOCS / folder).glob("*.md")
)

COMMANDS = ("sh", "bash")
"""Languages of command blocks."""

DEPLOYED: Mapping[str, tuple[str, ...]] = {
    "how-to/accuracy.md": ("python", "bash"),
    "how-to/several-graphs.md": ("bash",),
    "how-to/slow-workers.md": ("bash",),
    "how-to/updates.md": ("bash",),
    "tutorial/first-application.md": ("python", "sh"),
}
"""Page -> languages of the blocks that run against a deployment."""

UNTRIED: Mapping[str, Mapping[str, str]] = {
    "concepts/machines.md": {
        "jigsaw-triton plan traffic --cluster cluster.yaml --demand 2200 --cells 2": "six seconds of a processor"
    },
    "how-to/compose.md": {"make wheel": "docker"},
    "how-to/console.md": {"ssh -L 8080:127.0.0.1:8080 gpu1": "a second machine"},
    "how-to/install.md": {"git clone https://github.com/jigsaw-triton/jigsaw-triton": "packages"},
    "how-to/ray.md": {
        'pip install "jigsaw-triton[ray]"': "packages",
        "ray get-auth-token --generate": "a Ray cluster",
        "ray start --head --port=6379 --num-gpus=0 --num-cpus=0": "a Ray cluster",
    },
    "how-to/several-machines.md": {'pip install "jigsaw-triton[agents]"': "packages"},
    "how-to/slurm.md": {"sbatch --nodes=4 launch/slurm/jigsaw-triton.sbatch /shared/app A100-80GB 8 100": "Slurm"},
    "how-to/systemd.md": {
        "sudo -u jigsaw-triton env JIGSAW_STATE=/var/lib/jigsaw-triton XDG_RUNTIME_DIR=/run/jigsaw-triton "
        "jigsaw-triton status": "root and systemd"
    },
    "tutorial/first-application.md": {"git clone https://github.com/jigsaw-triton/jigsaw-triton": "packages"},
    "tutorial/models.md": {"pip install 'jigsaw-triton[onnxruntime,variants]' scikit-learn skl2onnx": "packages"},
    "tutorial/profiles.md": {
        "pip install 'jigsaw-triton[fit]'": "packages, and a GPU to measure",
        "perf_analyzer -m detect -b 4 --concurrency-range 2:2 -f detect.csv": "a model that Triton serves",
    },
}
"""Page -> first line of a command block that no test runs -> what it needs and the tests do not have."""

_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of a page.

    Attributes:
        language: Language of the block; empty if it has none.
        title: Name of the file that the block is; empty for all others.
        text: Content of the block.
    """

    language: str
    title: str
    text: str

    @property
    def first(self) -> str:
        """First line of the block."""
        return self.text.partition("\n")[0]


def blocks(page: str, *languages: str) -> list[Block]:
    """Returns the blocks of a page in some languages, without those that no test runs."""
    found = every_block(page)
    untried = UNTRIED.get(page, {})
    return [block for block in found if block.language in languages and block.first not in untried]


def every_block(page: str) -> list[Block]:
    """Returns all blocks of a page."""
    return [Block(*parts) for parts in _FENCE.findall((DOCS / page).read_text())]
