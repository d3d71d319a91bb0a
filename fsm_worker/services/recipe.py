"""What a runner is: a named recipe that turns a command of a script into an argument vector."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsm_worker.services.script import ScriptRefused, Word, shown
from fsm_worker.trainer import CONTROL, PUBLISH

# Whatever may stand between a path and the rest of a word: `key=[a,b]`, `file:///x`, `{k: v}`.
_AROUND_PATHS = re.compile(r"[\s=,:;|'\"\[\](){}]+")


@dataclass(frozen=True)
class Stage:
    """One command of a script.

    Args:
        runner: the name of the runner that it asks for.
        args: its words after the command's own.
        line: where it begins, counted from 1.
    """

    runner: str
    args: tuple[str, ...]
    line: int

    @property
    def words(self) -> tuple[Word, ...]:
        """The arguments with a line each; the command's, since theirs are forgotten."""
        return tuple(Word(self.line, text) for text in self.args)


@dataclass(frozen=True)
class Ports:
    """The ZMQ endpoints that the worker has bound for one job, as `tcp://127.0.0.1:PORT`.

    Args:
        publish: where the trainer sends its progress.
        control: where it hears requests to stop.
    """

    publish: str
    control: str


@dataclass(frozen=True)
class Runner:
    """A recipe; as it stands here, the one for a trainer that the operator brings.

    `own_runners` reads it from `worker.toml`.

    Args:
        name: unique in a worker, as the operator and the job's record know it.
        program: what runs, and its first arguments; the script's arguments follow.
        results: the paths it writes, relative to the package's folder.
        safe_path: keep Python from importing out of the package's folder; off for a program
            whose own folder holds modules that it imports.
        takes_words: whether a script may give it arguments.
        variables: set in its environment, as pairs of name and value.
    """

    name: str
    program: tuple[str, ...]
    results: tuple[str, ...] = ("results",)
    safe_path: bool = False
    takes_words: bool = True
    variables: tuple[tuple[str, str], ...] = ()

    def accept(self, line: int, args: Sequence[Word]) -> None:
        """Check the arguments as far as the script alone tells.

        Args:
            line: where the command begins.
            args: the words after the command's own.

        Raises:
            ScriptRefused: if one of them reaches outside the package's folder, or if it takes none.
        """
        del line
        if args and not self.takes_words:
            raise ScriptRefused(
                args[0].line,
                f"{shown(args[0].text)}: {self.name} takes no words here, so leave them out; the "
                f"operator may allow them with `args = true` in [runners.{self.name}]",
            )
        for word in args:
            stay_inside(word)

    def check(self, stage: Stage, folder: Path) -> None:
        """Check a stage against the files of its package, before anything runs; blocking.

        Args:
            stage: from `parse_script`.
            folder: the package's.

        Raises:
            ScriptRefused: if a file that the stage needs is not there.
        """

    def argv(self, stage: Stage, ports: Ports) -> tuple[str, ...]:
        """Make the argument vector, to be run in the package's folder.

        Args:
            stage: from `parse_script`.
            ports: bound, and the first of them being read, before the start.

        Returns:
            The program and its arguments; the program is always the operator's.
        """
        del ports  # a trainer that speaks through `fsm_worker.trainer` has them in `env`
        return (*self.program, *stage.args)

    def env(self, ports: Ports) -> dict[str, str]:
        """Make what the environment needs besides the worker's own.

        Args:
            ports: as for `argv`.

        Returns:
            Variables to set.
        """
        safe = {"PYTHONSAFEPATH": "1"} if self.safe_path else {}
        endpoints = {PUBLISH: ports.publish, CONTROL: ports.control}
        return {"PYTHONUNBUFFERED": "1", **safe, **dict(self.variables), **endpoints}

    def max_epochs(self, stage: Stage, folder: Path) -> int | None:
        """Tell how many epochs a stage will train at most; blocking.

        Args:
            stage: from `parse_script`.
            folder: the package's.

        Returns:
            The number, or None if only the trainer knows.
        """
        del stage, folder
        return None

    def outputs(self, stage: Stage, folder: Path | None = None) -> tuple[str, ...]:
        """Tell where the results will be; blocking.

        Args:
            stage: from `parse_script`.
            folder: the package's, for a runner whose configuration file says it.

        Returns:
            Files and folders, relative to the package's folder; inputs may lie among them.
        """
        del stage, folder
        return self.results


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file system takes is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def stay_inside(word: Word) -> None:
    """Refuse an argument that names a path outside the package's folder.

    A word is looked at piece by piece, since a path may stand after `key=`, in a list or in a
    URL; which options take paths need not be known.

    Args:
        word: an argument of any runner.

    Raises:
        ScriptRefused: if a piece is absolute, starts in a home folder, or climbs with `..`.
    """
    inside = "name a path inside the package"
    if "\\" in word.text:
        raise ScriptRefused(word.line, f"{shown(word.text)} has a backslash: {inside}, with `/`")
    for piece in _AROUND_PATHS.split(word.text):
        if piece.startswith(("/", "~")) or ".." in piece.split("/"):
            raise ScriptRefused(
                word.line, f"{shown(piece)} in {shown(word.text)} is outside the package: {inside}"
            )
    if re.match(r"-[^-]", word.text) and re.search(r"/|~|\.\.", word.text):
        raise ScriptRefused(
            word.line, f"{shown(word.text)} joins an option and a path: write two words"
        )


def split_long(args: Sequence[Word]) -> list[Word]:
    """Write `--option=value` as two words.

    Args:
        args: the words after a command's own.

    Returns:
        The same arguments, each option on its own.
    """
    found = []
    for word in args:
        option, equals, value = word.text.partition("=")
        if equals and option.startswith("--"):
            found += [Word(word.line, option), Word(word.line, value)]
        else:
            found.append(word)
    return found
