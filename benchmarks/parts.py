"""Benchmarks that consist of parts, each of which can run alone."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from benchmarks import harness, system
from benchmarks.effort import FULL, SMOKE, Effort
from benchmarks.harness import Figure, Progress

Part = Callable[[Progress, Effort], Awaitable[list[Figure]]]

P = TypeVar("P")


async def measure(progress: Progress, parts: Mapping[str, Part], effort: Effort) -> list[Figure]:
    """Runs the parts, one after the other."""
    return [found for part in parts.values() for found in await part(progress, effort)]


def parser(name: str, parts: Collection[str]) -> ArgumentParser:
    """Returns a parser with the options that all benchmarks with parts have.

    Args:
        name: Name of the benchmark.
        parts: Names of its parts.
    """
    found = harness.parser(name)
    found.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *parts], help=f"{', '.join(parts)}; default: all"
    )
    found.add_argument("--smoke", action="store_true", help="run quickly, only to show that the benchmark works")
    found.add_argument(
        "--rounds", type=_rounds, metavar="N", help=f"measurements of each figure (default: {FULL.rounds})"
    )
    return found


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def chosen(parts: Mapping[str, P], arguments: Namespace) -> tuple[dict[str, P], Effort]:
    """Returns the parts that the command line names, or all, and their effort."""
    effort = SMOKE if arguments.smoke else FULL
    if arguments.rounds:
        effort = replace(effort, rounds=arguments.rounds)
    return {name: parts[name] for name in arguments.parts or parts}, effort


def run(name: str, parts: Mapping[str, Part], arguments: Namespace) -> int:
    """Runs the parts that the command line names. Returns the exit code.

    Args:
        name: Name of the benchmark.
        parts: All parts of the benchmark.
        arguments: Result of `parser`.
    """
    wanted, effort = chosen(parts, arguments)
    return harness.report(
        name, lambda progress: system.run(measure(progress, wanted, effort), harness.limit_s(name)), arguments.form
    )


def main(name: str, parts: Mapping[str, Part]) -> int:
    """Runs the command line of a benchmark with parts. Returns the exit code."""
    return run(name, parts, parser(name, parts).parse_args())
