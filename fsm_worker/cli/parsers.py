"""What can be asked for on the command line; imports nothing that is slow."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from fsm_worker import __version__
from fsm_worker.cli.addresses import parse_listen, parse_stun
from fsm_worker.cli.config import KEYS
from fsm_worker.cli.durations import parse_duration
from fsm_worker.cli.exit_codes import ExitCode
from protocol.need import READERS, parse_need

PROG = "python -m fsm_worker"
T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, instead of repeating the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}; see `{self.prog} --help`\n")


#: Whom a signaling server believes beside its own tokens.
TRUSTED = {
    "jwt-key": "believe JWTs that this key signed (RSA or Ed25519 PEM, or a line hs256:SECRET); "
    '"unchecked" believes any, on loopback only',
    "api-keys": "believe API keys: lines of NAME KEY",
}


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A type for argparse that keeps the sentence of a ValueError."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def build_parser() -> Parser:
    """The parser; the chosen command's name is in `command`."""
    codes = "\n".join(f"  {code.value:>2}  {code.meaning}" for code in ExitCode)
    parser = Parser(
        prog=PROG,
        description="Hand GPU jobs to a worker over a peer-to-peer connection. Without a command, "
        "this machine becomes a worker.",
        epilog=f"try it here:  {PROG} demo\n\nexit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fsm-worker {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    of_jobs = (_submit, _attach, _ends, _fetch, _jobs, _explain)
    for add in (_worker, _signal, *of_jobs, _workers, _drains, _doctor, _others):
        add(commands)
    return parser


if TYPE_CHECKING:  # it is not generic at run time
    Commands = argparse._SubParsersAction[Parser]


def _add(commands: "Commands", name: str, about: str, details: str, example: str) -> Parser:
    parser: Parser = commands.add_parser(
        name,
        help=about,
        description=f"{details}\n",
        epilog=f"example:\n  {PROG} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="count", default=0, help="more; twice, all")
    loudness.add_argument("-q", "--quiet", action="store_true", help="results and errors only")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


def _worker(commands: "Commands") -> None:
    parser = _add(
        commands,
        "worker",
        "run a worker (the default)",
        "Runs a worker on this machine, and prints the line with which a client submits to it.\n"
        "Without --signaling it brings its own signaling server. A setting comes from its flag,\n"
        "else from FSM_WORKER_<NAME>, else from worker.toml, else it has its default.\n"
        "The first Ctrl-C lets the running job end; the second stops it.",
        "worker --listen 192.168.1.20:8080",
    )
    for key in KEYS:
        parser.add_argument(f"--{key.flag}", metavar=key.metavar, dest=key.name, help=key.about)
    parser.add_argument("--config", type=Path, metavar="FILE", help="instead of worker.toml")
    parser.add_argument(
        "--show-config", action="store_true", help="print each setting and where it comes from"
    )


def _signal(commands: "Commands") -> None:
    parser = _add(
        commands,
        "signal",
        "run a signaling server",
        "Runs a signaling server (HTTP and WebSocket on one port): clients and workers find each\n"
        "other there, and no job passes through it.",
        "signal --listen 0.0.0.0:8080",
    )
    parser.add_argument(
        "--listen",
        type=checked(parse_listen),
        default=parse_listen("127.0.0.1:8080"),
        metavar="ADDR:PORT",
        help="where (127.0.0.1:8080)",
    )
    for flag, about in TRUSTED.items():
        parser.add_argument(f"--{flag}", default="", metavar="FILE", help=about)
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="folder of its key: with the same one, peers come back after a restart (the user's)",
    )


def _several(parser: Parser, of_none: str) -> None:
    parser.add_argument(
        "--session",
        action="append",
        metavar="STRING",
        help=f"a worker, from its printed line; several times for several ({of_none})",
    )
    _stun(parser)


def _client(parser: Parser) -> None:
    parser.add_argument(
        "--session",
        metavar="STRING",
        help="the worker, from its printed line (else FSM_WORKER_SESSION, else the last one)",
    )
    _stun(parser)


def _stun(parser: Parser) -> None:
    parser.add_argument(
        "--stun",
        type=checked(parse_stun),
        metavar="URL|off",
        help="STUN server (used only where the signaling server is on another machine)",
    )


def _job(parser: Parser) -> None:
    parser.add_argument("job", nargs="?", metavar="JOB", help="its id (the last one)")
    _client(parser)


def _submit(commands: "Commands") -> None:
    parser = _add(
        commands,
        "submit",
        "send a job, watch it, get its results",
        "Packs a folder (or takes a .zip) with a train-script.sh or track-script.sh, sends it to\n"
        "the worker, shows its progress and gets the verified results. Ctrl-C asks whether to\n"
        "stop, cancel or detach; a second one, or the first without a terminal, detaches.\n"
        "With --shared-root, PATH and --output lie in a storage that the worker sees, too: their\n"
        "paths are sent, no file is, and the results are verified where the worker puts them:\n"
        f"  {PROG} submit --shared-root /mnt/lab /mnt/lab/in --output /mnt/lab/out",
        "submit my-package --output results/first",
    )
    parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="a folder or a .zip")
    parser.add_argument("--example", choices=("digits",), help="send this example instead")
    _several(parser, "the last one; with --need, all that you know")
    parser.add_argument(
        "--need",
        type=checked(parse_need),
        metavar="NAME=VALUE,…",
        help=f"take a worker that has this: {', '.join(READERS)}; such as vram=16GiB,runner=digits",
    )
    parser.add_argument("--name", help="of the job, for people (the folder's)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="results (./results/JOB)")
    parser.add_argument(
        "--shared-root",
        type=Path,
        metavar="DIR",
        help="the storage shared with the worker, here (or there, if this machine lacks it); PATH "
        "and --output are under it (DIR/results/JOB)",
    )
    parser.add_argument(
        "--wall",
        type=checked(parse_duration),
        metavar="TIME",
        help="stop the job after so long, such as 90s, 15m, 2h",
    )
    parser.add_argument(
        "--detach", action="store_true", help="leave once the worker has accepted the job (exit 9)"
    )


def _attach(commands: "Commands") -> None:
    parser = _add(
        commands,
        "attach",
        "watch a job: its whole log, then live",
        "Shows a job's whole output and goes on with it live; ends as `submit` would.",
        "attach digits-4f21c9 --output results/digits",
    )
    _job(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="get the results too")


def _ends(commands: "Commands") -> None:
    for name, about, details in (
        ("stop", "end a job with its batch, keep the model", "Asks a job to finish its batch."),
        ("cancel", "throw a job away", "Ends a job at once and throws its outputs away."),
    ):
        parser = _add(
            commands,
            name,
            about,
            f"{details} Waits until it has ended;\nthe exit code says how.",
            f"{name} digits-4f21c9",
        )
        _job(parser)
        parser.add_argument("--no-wait", action="store_true", help="do not wait for the end")


def _fetch(commands: "Commands") -> None:
    parser = _add(
        commands,
        "fetch",
        "get a job's results",
        "Gets the results of a job that has ended, and checks the hash of every file.",
        "fetch digits-4f21c9 --output results/digits",
    )
    _job(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="where (./results/JOB)")


def _jobs(commands: "Commands") -> None:
    _client(
        _add(
            commands,
            "jobs",
            "list your jobs on a worker",
            "Lists this client's jobs on a worker, oldest first.",
            "jobs",
        )
    )


def _explain(commands: "Commands") -> None:
    parser = _add(
        commands,
        "explain",
        "say why a job or the worker is in its state",
        "Shows the rows that led a job, or the worker, into its state: when each fired, on which\n"
        "event, and what its guards answered. Asks the worker; with --state, on the worker's own\n"
        "machine, it reads the journal there, also after the worker has ended.",
        "explain worker --state ~/.local/state/fsm-worker",
    )
    parser.add_argument(
        "what", nargs="?", metavar="JOB|worker", help="(the last job; with --state, the worker)"
    )
    _client(parser)
    parser.add_argument("--state", type=Path, metavar="DIR", help="of the worker, on its machine")


def _workers(commands: "Commands") -> None:
    parser = _add(
        commands,
        "workers",
        "list workers, and what they are doing",
        "Lists the workers that you have submitted to, and the others of their rooms.",
        "workers",
    )
    _several(parser, "all that you know")


def _drains(commands: "Commands") -> None:
    for name, about, details, example in (
        ("drain", "let a worker start no further job",
         "Keeps a worker from starting jobs, for a new driver, say. The running job may finish;\n"
         "jobs that wait go on waiting. Operators may do so: whoever came with the line that the\n"
         "worker printed, and whoever can read its state folder.",
         'drain --reason "a new driver" --deadline 2h'),
        ("undrain", "let it start jobs again",
         "Takes `drain` back; the worker looks at its GPU first.", "undrain"),
    ):  # fmt: skip
        parser = _add(commands, name, about, details, example)
        _client(parser)
        parser.add_argument(
            "--state", type=Path, metavar="DIR", help="a worker of this machine, by its --state"
        )
        if name == "drain":
            parser.add_argument("--reason", metavar="TEXT", help="for people who wait")
            parser.add_argument(
                "--deadline",
                type=checked(parse_duration),
                metavar="TIME",
                help="stop the running job after so long; its model is kept (it may finish)",
            )


def _doctor(commands: "Commands") -> None:
    _add(
        commands,
        "doctor",
        "check this machine",
        "Checks what a worker and a client need of this machine, and says what to do about what\n"
        "is missing.",
        "doctor",
    )


def _others(commands: "Commands") -> None:
    diagrams = _add(
        commands,
        "diagrams",
        "write the pages about the machines",
        "Writes diagrams/ from the tables of the machines; run it in a checkout.",
        "diagrams --check",
    )
    diagrams.add_argument("--check", action="store_true", help="write nothing; compare")
    demo = _add(
        commands,
        "demo",
        "see it work, on this machine alone",
        "Starts a worker of its own here, trains the digits example on it with live progress,\n"
        "gets the verified results and stops the worker. Takes about ten seconds.",
        "demo",
    )
    demo.add_argument("--output", type=Path, metavar="DIR", help="results (./results/demo-…)")
    demo.add_argument("--state", type=Path, metavar="DIR", help="keep the worker's state there")
    demo.add_argument(
        "--pace",
        type=checked(_pace),
        default=0.25,
        metavar="SECONDS",
        help="how long an epoch takes at least, so that there is something to see (0.25)",
    )


def _pace(text: str) -> float:
    try:
        pace = float(text)
    except ValueError:
        pace = -1.0
    if not 0 <= pace <= 10:
        raise ValueError(f"{text[:40]!r} is no number of seconds from 0 to 10")
    return pace
