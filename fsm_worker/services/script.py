"""The text of a package's script, read as words: a shell's quoting without a shell.

`train-script.sh` and `track-script.sh` look like shell because people also run them by hand. A
worker never gives them to one. It reads comments, blank lines, backslash continuations and POSIX
quotes (through `shlex`), and refuses every other thing that a shell would act on, with the number
of the line where it stands.
"""

import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAX_SCRIPT_BYTES = 64 * 1024

# What a shell acts on outside quotes. `$` and the backtick are not here: they are refused inside
# double quotes too, and inside single ones as well, since Hydra interpolates by itself.
_ACTIVE = frozenset(";&|<>()*?{}")
_EXPANDS = frozenset("$`")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class ScriptRefused(ValueError):
    """A script asks for something that this worker does not do.

    Args:
        line: counted from 1.
        sentence: names the word, and says what is allowed.
    """

    def __init__(self, line: int, sentence: str) -> None:
        super().__init__(f"line {line}: {sentence}")
        self.line = line
        self.sentence = sentence


class Word(NamedTuple):
    """One word of a command, unquoted, and the line where it stands, counted from 1."""

    line: int
    text: str


def shown(text: str) -> str:
    """Quote a word from a script for a sentence.

    Args:
        text: anything.

    Returns:
        At most 60 printable characters of it, in backticks.
    """
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:60])
    return f"`{printable[:60]}`"


def read_script(path: Path) -> str:
    """Read a script's text.

    Args:
        path: an existing file.

    Returns:
        Its text, line ends as they are.

    Raises:
        ScriptRefused: if it is longer than `MAX_SCRIPT_BYTES` or not UTF-8.
        OSError: if it can't be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_SCRIPT_BYTES + 1)
    _refuse_long(len(data))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise ScriptRefused(
            line, f"the byte 0x{byte:02x} is not UTF-8: save the script as UTF-8 text"
        ) from None


def commands(text: str) -> Iterator[tuple[Word, ...]]:
    """Split a script into its commands.

    Args:
        text: of the script; its lines end in LF or CRLF.

    Yields:
        The words of one command, at least one.

    Raises:
        ScriptRefused: at the first thing that is neither a word, a comment nor a continuation.
    """
    _refuse_long(len(text))
    words: list[Word] = []
    glue = False  # whether the line before ended inside a word
    *ended, last = text.split("\n")
    lines = [*(line.removesuffix("\r") for line in ended), last]
    for number, line in enumerate(lines, 1):
        if glue and line and line[0] not in " \t":
            raise ScriptRefused(number, "a word is split over two lines: put it on one of them")
        bare, continues = _scan(line, number)
        words += (Word(number, text) for text in shlex.split(bare))
        if continues and number == len(lines):
            raise ScriptRefused(number, "the script ends in `\\`, but no line follows")
        glue = continues and bool(bare) and bare[-1] not in " \t"
        if not continues and words:
            yield tuple(words)
            words = []


def _scan(line: str, number: int) -> tuple[str, bool]:
    """Check one line; give it without comment and continuation, and whether it continues."""
    _refuse_invisible(line, number)
    bare, continues, start = line, False, 0
    for index, character in _unquoted(line, number):
        if character in " \t":
            start = index + 1
        elif character == "#" and index == start:
            bare = line[:index]
            break
        elif character == "\\":  # the last one of the line: others escape what follows
            bare, continues = line[:index], True
        elif character in _ACTIVE or (character in "[]" and "=" not in line[start:index]):
            why = "is shell syntax: write one plain command a line, or quote it"
            raise _refusal(line, index, number, why)
    for index, character in enumerate(bare):
        if character in _EXPANDS:
            why = "is expanded by a shell: write the value itself"
            raise _refusal(line, index, number, why)
    return bare, continues


def _unquoted(line: str, number: int) -> Iterator[tuple[int, str]]:
    """Yield each character that no quote and no backslash protects, and a last backslash."""
    quote, escaped = "", False
    for index, character in enumerate(line):
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'" and (quote or index < len(line) - 1):
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            yield index, character
    if quote:
        raise ScriptRefused(number, f"the quote {quote} is not closed on its line")


def _refuse_invisible(line: str, number: int) -> None:
    for character in line:
        if character != "\t" and unicodedata.category(character) in _INVISIBLE:
            raise ScriptRefused(
                number, f"the invisible character U+{ord(character):04X} is in it: remove it"
            )


def _refusal(line: str, index: int, number: int, why: str) -> ScriptRefused:
    before = max(line.rfind(" ", 0, index), line.rfind("\t", 0, index)) + 1
    word = line[before:].split(maxsplit=1)[0]
    return ScriptRefused(number, f"{shown(line[index])} in {shown(word)} {why}")


def _refuse_long(size: int) -> None:
    if size > MAX_SCRIPT_BYTES:
        raise ScriptRefused(
            1, f"the script is longer than {MAX_SCRIPT_BYTES} bytes: keep only its commands"
        )
