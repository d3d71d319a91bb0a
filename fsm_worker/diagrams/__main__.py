"""`python -m fsm_worker.diagrams`."""

import sys

from fsm_worker.diagrams import main

sys.exit(main())
