"""Models of the page on models, made in a process that has the libraries."""

import runpy
import warnings
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.transformers_models import save_bert


@dataclass(frozen=True, slots=True)
class Making:
    """A job of the process that handles models.

    Attributes:
        folder: Folder of the models.
        code: Code of the page that makes the TorchScript model.
    """

    folder: Path
    code: str

    def perform(self) -> None:
        """Makes the models."""
        # TorchScript reads the source of the class from its file.
        file = self.folder / "scores.py"
        file.write_text(self.code)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_path(str(file), run_name="scores")
            save_bert(self.folder / "sentiment", "BertForSequenceClassification")
