"""The operator's own runners: `[runners.NAME]` in `worker.toml`.

    [runners.mine]
    argv = ["python", "train.py"]       # the program, and its first arguments
    args = true                         # the words of the script's line follow them
    outputs = ["models"]                # what it writes, in the package's folder
    env = { OMP_NUM_THREADS = "1" }

The program runs in the package's folder, and no shell sees it. Its files are the operator's:

- `python` is the Python that the worker runs on. Another program with a `/` in it is relative to
  the folder of `worker.toml`; one without is looked for on the PATH.
- A word that begins with `./` or `../`, or ends as a script does (`.py`, `.sh`, …), is a file of
  the operator's, too. It must be there: else a package could bring one of that name.
- All other words are given as they are.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fsm_worker.services.package_code import WORDS
from fsm_worker.services.recipe import Runner, stay_inside
from fsm_worker.services.script import ScriptRefused, Word
from fsm_worker.trainer import CONTROL, PUBLISH

#: First words that already mean something in a script.
TAKEN: Final = frozenset({"digits", "sleap-nn", "sleap-nn-train", "sleap-nn-track", *WORDS})

_KEYS: Final = ("argv", "args", "outputs", "env")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_SCRIPT: Final = re.compile(r".*\.(py|sh|bash|r|jl|pl|rb|js|mjs|lua|m)", re.IGNORECASE)
#: Options of Python that change neither what it runs nor whether the next word is its script.
#: Programs that run what their arguments name.
_INTERPRETERS: Final = (
    "python", "pypy", "sh", "bash", "dash", "zsh", "env", "node", "perl", "ruby", "julia",
    "Rscript", "lua", "octave", "nice", "nohup", "xargs", "timeout", "uv", "conda", "sudo",
)  # fmt: skip
_PLAIN: Final = re.compile(r"-[BEOdiqsuv]+")
_WORKERS: Final = {
    PUBLISH: "the worker sets it",
    CONTROL: "the worker sets it",
    "CUDA_VISIBLE_DEVICES": "the worker sets it: choose the GPU with `gpu`",
}
_MOST: Final = 64
_LONGEST: Final = 4096


class RunnerRefused(ValueError):
    """A table `[runners.NAME]` can't be used: write it as the sentence says; it names the key."""


def read_runner(name: str, table: object, folder: Path) -> Runner:
    """Read one table `[runners.NAME]`; blocking.

    Args:
        name: the first word of the line in a script.
        table: what stands there.
        folder: of the file in which it stands.

    Returns:
        The runner; its program and its files are absolute paths.

    Raises:
        RunnerRefused: if it can't be used.
    """
    where = f"runners.{name[:64]}"
    if not _NAME.fullmatch(name):
        raise RunnerRefused(f"{where}: name it by at most 64 letters, digits, `-` and `_`")
    if name in TAKEN:
        raise RunnerRefused(f"{where}: {name} is built in: choose another name")
    if not isinstance(table, Mapping):
        raise RunnerRefused(f'{where}: write [{where}], and below it argv = ["python", "train.py"]')
    for key in table:
        if key not in _KEYS:
            raise RunnerRefused(f"{where}: there is no {key[:40]!r}: {', '.join(_KEYS)} are")
    if "argv" not in table:
        raise RunnerRefused(f'{where}: argv is missing: write argv = ["python", "train.py"]')
    args = table.get("args", False)
    if not isinstance(args, bool):
        raise RunnerRefused(f"{where}.args: write true or false")
    words = _texts(f"{where}.argv", table["argv"], '["python", "train.py"]')
    if not words:
        raise RunnerRefused(f'{where}.argv: is empty: write argv = ["python", "train.py"]')
    program = (
        _program(f"{where}.argv", words[0], folder),
        *(_word(f"{where}.argv", word, folder) for word in words[1:]),
    )
    if args and Path(program[0]).name.startswith(_INTERPRETERS):
        _refuse_bare_interpreter(f"{where}.argv", program)
    return Runner(
        name,
        program,
        results=_outputs(f"{where}.outputs", table.get("outputs", ["results"])),
        safe_path=not _begins_with_python_file(program),
        takes_words=args,
        variables=_variables(f"{where}.env", table.get("env", {})),
    )


def _texts(key: str, value: object, example: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise RunnerRefused(f"{key}: write a list of texts, as {example}")
    if len(value) > _MOST:
        raise RunnerRefused(f"{key}: has {len(value)} entries: write at most {_MOST}")
    for text in value:
        _refuse_unusual(key, text)
    return value


def _refuse_unusual(key: str, text: str) -> None:
    if not text.strip() or len(text) > _LONGEST or "\0" in text:
        raise RunnerRefused(f"{key}: {text[:40]!r} is empty, far too long, or has a NUL in it")


def _program(key: str, word: str, folder: Path) -> str:
    if word in WORDS:
        return sys.executable
    if "/" not in word:
        found = shutil.which(word)
        if found is None:
            raise RunnerRefused(
                f"{key}: there is no program {word[:100]!r} on the PATH: write its path, or ./"
                f"{word[:100]} if it is in {folder}"
            )
        return str(Path(found).absolute())
    path = _file(key, word, folder)
    if not os.access(path, os.X_OK):
        raise RunnerRefused(f"{key}: {path} may not be run: write the program that runs it first")
    return str(path)


def _word(key: str, word: str, folder: Path) -> str:
    if word.startswith("-"):
        return word
    if word.startswith(("./", "../")) or _SCRIPT.fullmatch(word):
        return str(_file(key, word, folder))
    mine = folder / word  # what the operator has under this name is meant, and not a package's
    return os.path.abspath(mine) if _is_there(mine) else word  # noqa: PTH100 - keeps links


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _refuse_bare_interpreter(key: str, program: tuple[str, ...]) -> None:
    """Client's words after an interpreter alone would name what it runs."""
    if not any(not word.startswith("-") for word in program[1:]):
        raise RunnerRefused(
            f"{key}: with args = true it needs a script of yours after the program: clients "
            "would name what runs, which is `allow_package_code`"
        )


def _file(key: str, word: str, folder: Path) -> Path:
    try:
        path = Path(os.path.abspath(folder / Path(word).expanduser()))  # noqa: PTH100 - keeps links
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # too long a name; a home of nobody
        raise RunnerRefused(f"{key}: {word[:100]!r} is no path ({error})") from error
    raise RunnerRefused(f"{key}: there is no file {path}: write the path from {folder}")


def _begins_with_python_file(program: tuple[str, ...]) -> bool:
    """Whether Python takes the folder of an operator's file, not the package's, to import from."""
    if program[0].endswith(".py"):
        return True
    first = next((word for word in program[1:] if not _PLAIN.fullmatch(word)), "")
    return first.endswith(".py")


def _outputs(key: str, value: object) -> tuple[str, ...]:
    outputs = tuple(_texts(key, value, '["models"]'))
    if not outputs:
        raise RunnerRefused(f'{key}: is empty: write ["models"], or ["."] for all that is new')
    for path in outputs:
        try:
            stay_inside(Word(1, path))
        except ScriptRefused:
            raise RunnerRefused(
                f"{key}: {path[:100]!r} is not in the package's folder: write a path in it"
            ) from None
    return outputs


def _variables(key: str, value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping) or len(value) > _MOST:
        raise RunnerRefused(
            f'{key}: write at most {_MOST} variables, as {{ OMP_NUM_THREADS = "1" }}'
        )
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise RunnerRefused(f"{key}: {name[:40]!r} is no name of a variable")
        if name in _WORKERS:
            raise RunnerRefused(f"{key}.{name}: {_WORKERS[name]}")
        if not isinstance(text, str):
            raise RunnerRefused(f'{key}.{name}: write a text, as "1"')
        if len(text) > _LONGEST or "\0" in text:
            raise RunnerRefused(f"{key}.{name}: is far too long, or has a NUL in it")
    return tuple(value.items())
