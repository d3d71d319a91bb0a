"""The two commands of sleap-nn 0.3.5 that a worker runs: `train` and `track`.

Sources: `sleap_nn/cli.py` (options), `sleap_nn/training/model_trainer.py` (`publish_port` and
`controller_port` are port numbers, to which it connects on 127.0.0.1; folders) and
`sleap_nn/legacy_predict.py` (the default name of the predictions) of the 0.3.5 wheel.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from fsm_worker.services.recipe import Ports, Runner, Stage, is_file, split_long, stay_inside
from fsm_worker.services.script import ScriptRefused, Word, shown

# How many words follow each option of `sleap-nn train`.
_TRAIN_OPTIONS = {
    **dict.fromkeys(("--config", "--config-name", "-c", "--config-dir", "-d"), 1),
    **dict.fromkeys(("--video-paths", "-v", "--video-config"), 1),
    **dict.fromkeys(("--video-path-map", "--prefix-map"), 2),
}
_YAML = (".yaml", ".yml")
_MAX_CONFIG_BYTES = 1024 * 1024


class SleapTrain(Runner):
    """`sleap-nn train`: a configuration file and Hydra overrides."""

    def accept(self, line: int, args: Sequence[Word]) -> None:
        """Check options, paths and overrides.

        Args:
            line: where the command begins.
            args: the words after `sleap-nn train`.

        Raises:
            ScriptRefused: if an option is unknown or lacks its value, a path is outside the
                package, Hydra itself is to be configured, or no configuration file is named.
        """
        options, overrides = _split_train(args)
        for name, values in options:
            # The first word of a map is what a path was on the client; nothing opens it here.
            for value in values[1:] if len(values) == 2 else values:
                stay_inside(value)
            if len(values) < _TRAIN_OPTIONS[name.text]:
                raise ScriptRefused(name.line, f"{name.text} needs a value after it")
        for word in overrides:
            stay_inside(word)
            if _key(word.text).split("/")[0].split(".")[0].split("@")[0] == "hydra":
                raise ScriptRefused(
                    word.line,
                    f"{shown(word.text)} configures Hydra itself; only sleap-nn's own settings "
                    "may be overridden",
                )
        if _config(args) is None:
            raise ScriptRefused(
                line, "sleap-nn train names no configuration: add --config-name FILE.yaml"
            )

    def check(self, stage: Stage, folder: Path) -> None:
        """Check that the configuration is in the package and writes inside it; blocking.

        Args:
            stage: from `parse_script`.
            folder: the package's.

        Raises:
            ScriptRefused: if it is not, or does not.
        """
        config = _config(stage.words)
        if config is None or not is_file(folder / config):
            raise ScriptRefused(stage.line, f"the package has no file {shown(str(config))}: add it")
        for path in self.outputs(stage, folder):
            stay_inside(Word(stage.line, path))

    def argv(self, stage: Stage, ports: Ports) -> tuple[str, ...]:
        """Make the argument vector, with the worker's ports in place of the script's.

        Args:
            stage: from `parse_script`.
            ports: bound, and the first of them being read, before the start.

        Returns:
            The program and its arguments.
        """
        zmq = "trainer_config.zmq"
        kept = (a for a in stage.args if _key(a) != zmq and not _key(a).startswith(f"{zmq}."))
        return (
            *self.program,
            *kept,
            f"++{zmq}.publish_port={_port(ports.publish)}",
            f"++{zmq}.controller_port={_port(ports.control)}",
        )

    def max_epochs(self, stage: Stage, folder: Path) -> int | None:
        """Tell how many epochs a stage will train at most; blocking.

        Args:
            stage: from `parse_script`.
            folder: the package's.

        Returns:
            What an override says, else what the configuration file says; None if neither.
        """
        found = _setting(stage, folder, "max_epochs")
        return int(found) if found and re.fullmatch(r"[0-9]{1,9}", found) else None

    def outputs(self, stage: Stage, folder: Path | None = None) -> tuple[str, ...]:
        """Tell where the models will be; blocking.

        Args:
            stage: from `parse_script`.
            folder: the package's; without it only the overrides are looked at.

        Returns:
            The folder in which sleap-nn makes one for each run: never the run's own, since a
            name that exists gets a number.
        """
        found = _setting(stage, folder, "ckpt_dir")
        return (found if found and found not in ("null", "None", "~") else ".",)


class SleapTrack(Runner):
    """`sleap-nn track`: a data file, models, and a file of predictions."""

    def accept(self, line: int, args: Sequence[Word]) -> None:
        """Check paths, and that the name of the predictions is known.

        Args:
            line: where the command begins.
            args: the words after `sleap-nn track`.

        Raises:
            ScriptRefused: if a path is outside the package, or the output has no known name.
        """
        super().accept(line, args)
        words = split_long(args)
        data = _value(words, "--data_path", "-i") or ""
        if not _value(words, "--output_path", "-o") and (
            not Path(data).name or _value(words, "--video_index")
        ):
            raise ScriptRefused(line, "sleap-nn track names no output here: add -o FILE.slp")

    def outputs(self, stage: Stage, folder: Path | None = None) -> tuple[str, ...]:
        """Tell where the predictions will be.

        Args:
            stage: from `parse_script`.
            folder: not looked at.

        Returns:
            The file of predictions.
        """
        del folder
        words = split_long(stage.words)
        output = _value(words, "--output_path", "-o")
        if output:
            return (output,)
        data = _value(words, "--data_path", "-i") or "results"
        return (str(Path(data).with_suffix(".predictions.slp")),)


def _split_train(args: Sequence[Word]) -> tuple[list[tuple[Word, list[Word]]], list[Word]]:
    """Sort words into options with their values, and the rest."""
    options: list[tuple[Word, list[Word]]] = []
    rest: list[Word] = []
    words = iter(split_long(args))
    for word in words:
        if not word.text.startswith("-"):
            rest.append(word)
        elif word.text in _TRAIN_OPTIONS:
            values = [
                value for _, value in zip(range(_TRAIN_OPTIONS[word.text]), words, strict=False)
            ]
            options.append((word, values))
        else:
            raise ScriptRefused(
                word.line,
                f"{shown(word.text)} is not an option of sleap-nn train; they are "
                f"{', '.join(_TRAIN_OPTIONS)}",
            )
    return options, rest


def _config(args: Sequence[Word]) -> str | None:
    """Find the configuration file as sleap-nn does: first word, --config, --config-name."""
    options, rest = _split_train(args)
    given = {name.text: values[0].text for name, values in options if values}
    if rest and rest[0].text.endswith(_YAML):
        return rest[0].text
    if "--config" in given:
        return given["--config"]
    name = given.get("--config-name", given.get("-c"))
    if name is None:
        return None
    if not Path(name).name:  # a folder alone, which names no file
        return None
    path = Path(given.get("--config-dir", given.get("-d", "."))) / name
    return str(path if name.endswith(_YAML) else path.with_name(f"{path.name}.yaml"))


def _setting(stage: Stage, folder: Path | None, key: str) -> str | None:
    """Find what `trainer_config.KEY` will be: the last override, else the file's line."""
    found = None
    for arg in stage.args:
        if _key(arg) == f"trainer_config.{key}" and "=" in arg:
            found = arg.partition("=")[2].strip("'\" ")
    config = _config(stage.words)
    if found is not None or folder is None or config is None:
        return found
    try:
        with (folder / config).open("rb") as file:
            return _yaml_line(file.read(_MAX_CONFIG_BYTES).decode(errors="replace"), key)
    except OSError:
        return None


def _yaml_line(text: str, key: str) -> str | None:
    """Read one scalar of the block `trainer_config:`, by its line and indentation.

    That is how sleap, sleap-nn and OmegaConf write it; in any other layout it stays unknown.
    """
    inside, indent = False, None
    for line in text.splitlines():
        body = line.split("#", 1)[0].rstrip()
        if not body:
            continue
        depth = len(body) - len(body.lstrip(" "))
        if depth == 0:
            inside, indent = body == "trainer_config:", None
        elif inside:
            indent = depth if indent is None else indent
            name, colon, value = body.strip().partition(":")
            if depth == indent and colon and name == key:
                return value.strip().strip("'\"") or None
    return None


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].strip()


def _value(words: Sequence[Word], *names: str) -> str | None:
    found = None
    for option, value in pairwise(words):
        if option.text in names:
            found = value.text
    return found


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])
