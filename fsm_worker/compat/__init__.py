"""Programs that were written for sleap-rtc's worker run on this one.

`python -m fsm_worker.compat -m MODULE` runs such a program as it is. A program that may be changed
calls `install` before it imports anything of `sleap_rtc`.
"""

from fsm_worker.compat.finder import install as install
from fsm_worker.compat.finder import uninstall as uninstall
