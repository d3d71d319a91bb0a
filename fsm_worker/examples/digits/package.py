"""The folder that a client submits to have the digits trained by a worker."""

import shutil
from importlib import resources
from pathlib import Path


def build_package(dest: Path, *, epochs: int = 30, pace: float = 0.0) -> Path:
    """Make a package: a `train-script.sh` of one command, and the data that it names.

    Args:
        dest: the folder to make; its parents are made too.
        epochs: how many.
        pace: seconds to stretch an epoch to, at least; 0 for full speed.

    Returns:
        `dest`.

    Raises:
        FileExistsError: if `dest` exists.
    """
    dest.mkdir(parents=True)
    source = resources.files("fsm_worker.examples.digits").joinpath("digits.npz")
    with source.open("rb") as data, (dest / "digits.npz").open("wb") as copy:
        shutil.copyfileobj(data, copy)
    slowly = f" --pace {pace:g}" if pace else ""
    command = f"digits train --epochs {epochs} --data digits.npz{slowly}"
    # As bytes: on Windows a text file would end its lines in \r\n.
    (dest / "train-script.sh").write_bytes(f"#!/bin/bash\n{command}\n".encode())
    return dest
