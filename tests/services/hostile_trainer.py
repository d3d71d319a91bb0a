"""A program that misbehaves as trainers do, one way for each first argument. Standard library only.

Whatever it leaves behind ends by itself after LIFETIME seconds: a failing test harms no machine.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

LIFETIME = 30.0  # seconds
_END = time.monotonic() + LIFETIME
_OUT = sys.stdout.fileno()


def linger() -> None:
    while time.monotonic() < _END:
        time.sleep(LIFETIME)
    os._exit(0)


def say_ready() -> None:
    os.write(_OUT, b"READY\n")


def ignore_signals() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)


def daemonise_and(action: Callable[[], None]) -> None:
    """Run `action` in a grandchild that has a session of its own and no living parent."""
    told, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(tell, b"x")
            action()
            os._exit(0)
        os._exit(0)
    os.wait()
    os.read(told, 1)


def echo() -> None:
    """Write what a terminal shows but no text layer lets through unchanged."""
    os.write(_OUT, b"first\n 10%\r 20%\r 30%\r\n")
    os.write(2, b"error\n")
    os.write(_OUT, bytes(range(256)) + b"\n")
    line = memoryview(b"x" * 200_000 + b"\n")
    while line:
        line = line[os.write(_OUT, line) :]
    os.write(_OUT, b"no newline at the end")


def defiant() -> None:
    ignore_signals()
    daemonise_and(linger)
    if os.fork() == 0:
        linger()
    say_ready()
    linger()


def leaver() -> None:
    daemonise_and(linger)
    say_ready()


def secretive() -> None:
    """Leave a process that cannot be known by its environment, and stay."""
    subprocess.Popen([sys.executable, "-S", __file__, "linger"], env={})
    say_ready()
    linger()


def fly(step: float) -> None:
    """Fork a copy and end, again and again: a process whose id never stands still."""
    while time.monotonic() < _END:
        if os.fork():
            os._exit(0)
        time.sleep(step)


def respawn(size: int) -> None:
    """A tree that replaces its dead: `size` children, half of them in sessions of their own."""
    ignore_signals()
    for _ in range(4):
        daemonise_and(lambda: fly(0.003))
    children: dict[int, int] = {}

    def raise_child(number: int) -> None:
        pid = os.fork()
        if pid == 0:
            if number % 2:
                os.setsid()
            linger()
        children[pid] = number

    for number in range(size):
        raise_child(number)
    say_ready()
    while time.monotonic() < _END:
        raise_child(children.pop(os.wait()[0]))


def flood(size: int) -> None:
    block = b"0123456789abcdef" * 4096
    while size > 0:
        size -= os.write(_OUT, block[:size])


def main(mode: str, *arguments: str) -> None:
    match mode:
        case "echo":
            echo()
        case "exit":
            sys.exit(int(arguments[0]))
        case "raise":
            os.kill(os.getpid(), int(arguments[0]))
            linger()
        case "wait":
            say_ready()
            linger()
        case "linger":
            linger()
        case "defiant":
            defiant()
        case "leaver":
            leaver()
        case "secretive":
            secretive()
        case "respawn":
            respawn(int(arguments[0]))
        case "flood":
            flood(int(arguments[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
