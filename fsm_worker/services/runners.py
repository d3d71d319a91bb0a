"""Which commands of a package's script a worker runs, and how it finds them in the text.

The operator decides which runners a worker has. A script can only name one of them and give it
arguments; the program itself never comes from the script, and no shell is ever involved. What is
fenced in are the arguments: what a configuration file or a trained model makes sleap-nn do is not
looked at here, and sleap-nn reads models as pickles.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from fsm_worker.examples.digits.options import OPTIONS, Value
from fsm_worker.services.package_code import refuse_package_code
from fsm_worker.services.recipe import Ports, Runner, Stage, is_file, split_long
from fsm_worker.services.script import ScriptRefused, Word, commands, read_script, shown
from fsm_worker.services.sleap_nn import SleapTrack, SleapTrain

__all__ = [
    "Digits",
    "Ports",
    "Runner",
    "Runners",
    "ScriptRefused",
    "Stage",
    "builtin_runners",
    "parse_script",
    "read_script",
    "runner_of",
]

Runners: TypeAlias = Mapping[tuple[str, ...], Runner]

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")


class Digits(Runner):
    """`digits train`: the example, whose options are all known and typed."""

    def accept(self, line: int, args: Sequence[Word]) -> None:
        """Check that each option is known, its value of its type, and its path inside.

        Args:
            line: where the command begins.
            args: the words after `digits train`.

        Raises:
            ScriptRefused: if one of them is not, or the data is not named.
        """
        super().accept(line, args)
        if "--data" not in _digits_values(args):
            raise ScriptRefused(line, "digits train names no data: add --data FILE.npz")

    def check(self, stage: Stage, folder: Path) -> None:
        """Check that the data is in the package; blocking.

        Args:
            stage: from `parse_script`.
            folder: the package's.

        Raises:
            ScriptRefused: if it is not.
        """
        data = str(_digits_values(stage.words)["--data"])
        if not is_file(folder / data):
            raise ScriptRefused(stage.line, f"the package has no file {shown(data)}: add it")

    def max_epochs(self, stage: Stage, folder: Path) -> int | None:
        """Tell how many epochs a stage will train at most.

        Args:
            stage: from `parse_script`.
            folder: not looked at.

        Returns:
            The number given, or the trainer's default.
        """
        del folder
        return int(_digits_values(stage.words)["--epochs"])

    def outputs(self, stage: Stage, folder: Path | None = None) -> tuple[str, ...]:
        """Tell where the results will be.

        Args:
            stage: from `parse_script`.
            folder: not looked at.

        Returns:
            The output folder.
        """
        del folder
        return (str(_digits_values(stage.words)["--output"]),)


def builtin_runners(sleap_nn: Path | None = None) -> dict[tuple[str, ...], Runner]:
    """Make the runners that need no configuration.

    Args:
        sleap_nn: the `sleap-nn` program of the environment where it is installed; None for the
            one on the PATH, if there is one.

    Returns:
        Runners by the words that ask for them. An operator's own are added beside:
        `{**builtin_runners(), ("mine",): Runner("mine", ("python", "/opt/mine/train.py"))}`.

    Raises:
        FileNotFoundError: if `sleap_nn` is given and is not a program.
    """
    # -P: without it, Python would import what lies in the package's folder.
    digits = Digits(
        "digits",
        (sys.executable, "-P", "-m", "fsm_worker.examples.digits"),
        safe_path=True,
    )
    found: dict[tuple[str, ...], Runner] = {("digits", "train"): digits}
    if sleap_nn is None:
        on_path = shutil.which("sleap-nn")
        sleap_nn = Path(on_path) if on_path else None
    elif not (sleap_nn.is_file() and os.access(sleap_nn, os.X_OK)):
        raise FileNotFoundError(f"{sleap_nn} is not a program: give the path of `sleap-nn`")
    if sleap_nn is not None:
        program = str(sleap_nn.absolute())  # it will run in the package's folder
        train = SleapTrain("sleap-nn train", (program, "train"), safe_path=True)
        track = SleapTrack("sleap-nn track", (program, "track"), safe_path=True)
        found |= {("sleap-nn", "train"): train, ("sleap-nn", "track"): track}
        # sleap's exporter wrote these before sleap-nn had one program for all
        found |= {("sleap-nn-train",): train, ("sleap-nn-track",): track}
    return found


def parse_script(text: str, runners: Runners) -> tuple[Stage, ...]:
    """Find the stages of a job in the text of its script.

    Args:
        text: from `read_script`.
        runners: by the words that ask for them.

    Returns:
        At least one stage, in the order of the script.

    Raises:
        ScriptRefused: at the first line that is anything but a comment or a command for one of
            the runners with arguments that it accepts; also if there is no command at all.
    """
    stages = []
    for words in commands(text):
        command, runner = _asked_for(words, runners)
        args = words[len(command) :]
        runner.accept(words[0].line, args)
        stages.append(Stage(runner.name, tuple(w.text for w in args), words[0].line))
    if not stages:
        raise ScriptRefused(1, f"the script has no command; allowed here: {_allowed(runners)}")
    return tuple(stages)


def runner_of(stage: Stage, runners: Runners) -> Runner:
    """Find the runner that a stage asks for.

    Args:
        stage: from `parse_script`.
        runners: those of this worker.

    Returns:
        The runner of the stage's name.

    Raises:
        ScriptRefused: if this worker has none; the operator may have changed them meanwhile.
    """
    for runner in runners.values():
        if runner.name == stage.runner:
            return runner
    raise ScriptRefused(
        stage.line, f"{shown(stage.runner)} is no runner here; allowed: {_allowed(runners)}"
    )


def _asked_for(words: Sequence[Word], runners: Runners) -> tuple[tuple[str, ...], Runner]:
    texts = tuple(word.text for word in words)
    for command in sorted(runners, key=len, reverse=True):
        if texts[: len(command)] == command:
            return command, runners[command]
    wrong, allowed = words[0], f"allowed here: {_allowed(runners)}"
    if len(words) > 1 and any(command[0] == texts[0] for command in runners):
        wrong = Word(words[1].line, " ".join(texts[:2]))
    refuse_package_code(words[0])
    if _ASSIGNMENT.match(wrong.text):
        raise ScriptRefused(wrong.line, f"{shown(wrong.text)} sets a variable; {allowed}")
    raise ScriptRefused(wrong.line, f"{shown(wrong.text)} is not run by this worker; {allowed}")


def _allowed(runners: Runners) -> str:
    return ", ".join(" ".join(command) for command in sorted(runners)) or "nothing"


def _digits_values(args: Sequence[Word]) -> dict[str, Value]:
    """Read the options with their types and defaults; one without a default may be missing."""
    known = {option.name: option for option in OPTIONS}
    values = {option.name: option.default for option in OPTIONS if option.default is not None}
    words = iter(split_long(args))
    for word in words:
        if word.text not in known:
            raise ScriptRefused(
                word.line,
                f"{shown(word.text)} is not an option of digits train; they are {', '.join(known)}",
            )
        value = next(words, Word(word.line, ""))
        try:
            values[word.text] = known[word.text].parse(value.text)
        except ValueError as expected:
            raise ScriptRefused(
                value.line, f"{shown(value.text)} after {word.text} is not {expected}"
            ) from None
    return values
