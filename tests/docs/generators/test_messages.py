from textwrap import dedent

from docs.generators.messages import Message, find_messages
from docs.generators.sources import parse

ERRORS = """
class JigsawError(Exception): ...
class InputError(JigsawError): ...
class PortError(InputError): ...
class ValueProblem(Exception): ...
"""


def found(text: str, name: str = "ports") -> list[tuple[str, tuple[str, ...]]]:
    """(Message, hints) of each report in a module."""
    modules = {"errors": parse("pack", "errors", ERRORS), name: parse("pack", name, dedent(text))}
    return [(message.text, message.hints) for message in find_messages(modules)]


def test_errors_and_their_subclasses_are_found() -> None:
    text = """
    raise PortError(f"port {port} is taken", where=place, hint="choose another")
    raise InputError("there is no port")
    raise ValueProblem("this is none")
    """
    assert found(text) == [("port … is taken", ("choose another",)), ("there is no port", ())]


def test_a_message_is_on_one_line() -> None:
    assert found("raise InputError(f'it failed:\\n  {lines}')") == [("it failed: …", ())]


def test_each_message_has_the_hint_of_its_branch() -> None:
    text = """
    def check(x):
        message, hint = ("too large", "make it smaller") if x > 1 else ("too small", "make it larger")
        if x:
            message = "it is too large"
            hint = "make it smaller"
        else:
            message = "it is too small"
            hint = "make it larger"
        raise InputError(message, hint=hint)
    """
    assert found(text) == [("it is too large", ("make it smaller",)), ("it is too small", ("make it larger",))]


def test_functions_with_a_message_and_a_hint_report_errors() -> None:
    text = """
    class Report:
        def add(self, path, message, hint=""):
            self.problems.append(Diagnostic(path, message, hint))

    def failure(message: str) -> InputError:
        return InputError(message, hint="see the log")

    report.add(path, f"there is no task {name}", "add one")
    names.add("one two")
    raise failure("it has ended")
    """
    assert found(text) == [("there is no task …", ("add one",)), ("it has ended", ("see the log",))]


def test_an_error_of_the_command_line_has_the_hint_of_the_program() -> None:
    text = """
    raise click.UsageError("--all needs --bound")
    self.fail(f"{value!r} is not a share", param, ctx)
    """
    assert [hints for _, hints in found(text)] == [("see the help of the command",)] * 2


def test_pairs_of_a_message_and_a_hint_are_found() -> None:
    text = """
    def explain(error) -> tuple[str, str]:
        return f"missing key {key}", "add it"
    """
    assert found(text, "spec.explain") == [("missing key …", ("add it",))]
    assert found(text, "console.view") == []


def test_an_error_that_passes_on_another_message_is_left_out() -> None:
    assert found("raise InputError(str(error))") == []


def test_a_message_has_its_place() -> None:
    modules = {"errors": parse("pack", "errors", ERRORS), "it": parse("pack", "it", "\nraise InputError('no port')")}
    assert find_messages(modules) == [Message("it", 2, "no port", ())]
