"""How much is tried: a share in every run, all of it where the environment says so.

FSM_WORKER_FUZZ_CASES     structured cases, over all decoders together
FSM_WORKER_FUZZ_MUTANTS   mutated inputs, likewise
FSM_WORKER_FUZZ_SEED      another number, other mutants and other cases
"""

import os

CASES = int(os.environ.get("FSM_WORKER_FUZZ_CASES", "1200"))
MUTANTS = int(os.environ.get("FSM_WORKER_FUZZ_MUTANTS", "40000"))
SEED = int(os.environ.get("FSM_WORKER_FUZZ_SEED", "1"))
#: CPU seconds that one input may take; most take a ten-thousandth of it.
CEILING_S = 2.0
#: MiB that the whole process may grow by while it is given mutants.
GROWTH_MIB = 256
