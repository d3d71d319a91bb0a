"""`python FILE.py`: runs code that the client has brought, where the operator allows it.

A worker runs the operator's programs. One that has this runner runs whatever its clients write, as
the user who runs the worker.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from fsm_worker.services.recipe import Runner, Stage
from fsm_worker.services.script import ScriptRefused, Word, shown

#: The first word of such a command.
WORDS = ("python", "python3")
#: By which the operator allows it.
SETTING = "allow_package_code"


class PackageCode(Runner):
    """`python FILE.py`: a program of the package, by the Python that the worker runs on."""

    def accept(self, line: int, args: Sequence[Word]) -> None:
        """Check that a file of the package is named first, and that no path leaves the package.

        Args:
            line: where the command begins.
            args: the words after `python`.

        Raises:
            ScriptRefused: if it is another thing than a file, or a path is outside.
        """
        super().accept(line, args)
        if not args or args[0].text.startswith("-") or not args[0].text.endswith(".py"):
            wrong = args[0] if args else Word(line, "python")
            raise ScriptRefused(
                wrong.line,
                f"{shown(wrong.text)}: name a file of the package first, as `python train.py`",
            )

    def check(self, stage: Stage, folder: Path) -> None:
        """Check that the file is in the package; blocking.

        Args:
            stage: from `parse_script`.
            folder: the package's.

        Raises:
            ScriptRefused: if it is not.
        """
        try:
            file = (folder / stage.args[0]).resolve(strict=True)
            there = file.is_file() and file.is_relative_to(folder.resolve())
        except (OSError, RuntimeError):  # not there, too long a name, a loop of links
            there = False
        if not there:
            raise ScriptRefused(
                stage.line, f"the package has no file {shown(stage.args[0])}: add it"
            )


def package_code() -> dict[tuple[str, ...], Runner]:
    """Make the runner of code that clients bring.

    Returns:
        The runner, by the words that ask for it. Its results are all that is new in the package.
    """
    runner = PackageCode(
        "python",
        (sys.executable,),
        results=(".",),
        # what the import of a module would leave beside it is no result
        variables=(("PYTHONDONTWRITEBYTECODE", "1"),),
    )
    return {(word,): runner for word in WORDS}


def refuse_package_code(first: Word) -> None:
    """Refuse a command that would run the package's own code, naming the setting that allows it.

    Args:
        first: the first word of a command for which a worker has no runner.

    Raises:
        ScriptRefused: if it asks for Python.
    """
    if first.text in WORDS:
        raise ScriptRefused(
            first.line,
            f"{shown(first.text)} would run code of the package, and this worker runs its "
            f"operator's programs only; the operator may allow it with {SETTING}",
        )
