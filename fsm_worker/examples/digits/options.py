"""The options of the digits trainer: one table for its own command line and for the worker.

Only the standard library is used, so that a worker can check a script without loading numpy.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

Value = int | float | str


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: as written, with its dashes.
        parse: makes the value from its text, or raises ValueError with what was expected.
        default: used when the option is absent; None where it must be given.
        about: for `--help`, with the unit.
    """

    name: str
    parse: Callable[[str], Value]
    default: Value | None
    about: str


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            # A leading dash would read as an option on a command line.
            value = math.nan if text.startswith("-") else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return parse


def _path(text: str) -> str:
    if not text or text.startswith("-"):
        raise ValueError("a path")
    return text


OPTIONS = (
    Option("--data", _path, None, "the .npz file with `images` and `labels`"),
    Option("--output", _path, "results", "folder for model.npz and metrics.json (%(default)s)"),
    Option("--epochs", _whole(1, 10_000), 20, "how often to see every image (%(default)s)"),
    Option("--hidden", _whole(1, 4096), 32, "units in the hidden layer (%(default)s)"),
    Option("--batch-size", _whole(1, 4096), 32, "images a batch (%(default)s)"),
    Option("--lr", _number(1e-6, 10), 0.05, "learning rate (%(default)s)"),
    Option("--momentum", _number(0, 0.999), 0.9, "of the gradient descent (%(default)s)"),
    Option("--seed", _whole(0, 2**31), 0, "fixes the split, the start and the order (%(default)s)"),
    Option(
        "--pace",
        _number(0, 3600),
        0.0,
        "seconds to stretch an epoch to, at least; the training is the same, only slow enough "
        "for a person to watch (%(default)s)",
    ),
)


def build_parser() -> argparse.ArgumentParser:
    """Make the command line from the table.

    Returns:
        A parser whose namespace has one attribute an option, such as `batch_size`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fsm_worker.examples.digits",
        description="Train a small network on handwritten digits, for real, on the CPU.",
        epilog="example: python -m fsm_worker.examples.digits --data digits.npz --epochs 20",
        allow_abbrev=False,
    )
    for option in OPTIONS:
        parser.add_argument(
            option.name,
            type=_for_argparse(option.parse),
            default=option.default,
            required=option.default is None,
            help=option.about,
        )
    return parser


def _for_argparse(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    def convert(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None

    return convert
