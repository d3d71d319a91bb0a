"""A small honest trainer: a numpy network that learns to read handwritten digits.

`python -m fsm_worker.examples.digits --help` runs it alone; `build_package` makes the folder
that a client submits to a worker.
"""

from fsm_worker.examples.digits.package import build_package as build_package
