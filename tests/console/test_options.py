import pytest

from jigsaw_triton.console.options import Listen, ProcessOptions, options_from, parse_listen, process_options
from jigsaw_triton.errors import InputError


@pytest.mark.parametrize(
    ("text", "listen", "shown"),
    [
        ("8004", Listen("127.0.0.1", 8004), "127.0.0.1:8004"),
        ("0.0.0.0:1", Listen("0.0.0.0", 1), "0.0.0.0:1"),
        ("[::]:8004", Listen("::", 8004), "[::]:8004"),
    ],
)
def test_a_port_may_have_an_address(text: str, listen: Listen, shown: str) -> None:
    assert parse_listen(text) == listen
    assert str(listen) == shown


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "http", ":8004", "a:", "8004x", "٣"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a port"):
        parse_listen(text)


@pytest.mark.parametrize(
    "options", [ProcessOptions(), ProcessOptions("json"), ProcessOptions("text", Listen("0.0.0.0", 8004))]
)
def test_options_travel_in_the_environment(options: ProcessOptions) -> None:
    assert options_from({"PATH": "/bin", **options.environment()}) == options


def test_an_empty_variable_has_no_effect() -> None:
    assert options_from({"JIGSAW_LOG_FORMAT": "", "JIGSAW_CONTROLLER_METRICS": ""}) == ProcessOptions()


@pytest.mark.parametrize("name", ["JIGSAW_LOG_FORMAT", "JIGSAW_CONTROLLER_METRICS"])
def test_an_error_names_the_variable(name: str) -> None:
    with pytest.raises(InputError) as caught:
        options_from({name: "xml"})
    assert caught.value.where == name
    assert "xml" in caught.value.message


def test_options_in_effect_have_their_defaults() -> None:
    assert ProcessOptions().to_json() == {"log_format": "text", "metrics": None}
    assert process_options("json", 8004).to_json() == {"log_format": "json", "metrics": "127.0.0.1:8004"}
