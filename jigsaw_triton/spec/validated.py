"""Validation of the data of a file that has to be right as a whole."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from jigsaw_triton.spec.explain import explain
from jigsaw_triton.spec.source import Report, dotted
from jigsaw_triton.spec.words import shown

Document = TypeVar("Document", bound=BaseModel)

_NO_FORMS: Mapping[str | int, str] = MappingProxyType({})


def validated(model: type[Document], data: Any, report: Report, forms: Mapping[str | int, str] = _NO_FORMS) -> Document:
    """Returns the data of a file as a document.

    Args:
        model: Model of the document.
        data: Data of the file.
        report: Collection of the mistakes.
        forms: Key whose value has a restricted form that is no name -> hint that describes the form.

    Raises:
        SpecError: The data is wrong; the error lists every mistake.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        schema = model.model_json_schema(by_alias=True)
        for details in error.errors(include_url=False):
            loc = details["loc"][:-1] if details["loc"][-1:] == ("[key]",) else details["loc"]
            if details["type"] == "string_pattern_mismatch" and loc[-1] in forms:
                report.add(loc, f"{dotted(loc)} is {shown(details['input'])}", forms[loc[-1]])
            else:
                report.add(loc, *explain(details, loc, schema))
        report.raise_if_any()
        raise
