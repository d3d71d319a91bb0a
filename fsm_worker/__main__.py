"""`python -m fsm_worker`: see `fsm_worker.cli`."""

import sys

from fsm_worker.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
