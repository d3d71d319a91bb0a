"""A trainer that does nothing but report, or nothing but copy; a worker runs it as a job.

trainer.py epochs COUNT RATE    reports COUNT epochs, RATE a second, each with its time
trainer.py copy FILE            copies FILE into the results
"""

import shutil
import sys
import time
from pathlib import Path

from fsm_worker import trainer

#: The metric that says when a report was made, in seconds since 1970-01-01 UTC.
SENT_AT = "sent_at"


def report(count: int, rate: float) -> None:
    trainer.start(max_epochs=count)
    begin = time.monotonic()
    for epoch in range(count):
        time.sleep(max(0.0, begin + epoch / rate - time.monotonic()))
        trainer.report(epoch=epoch, loss=1.0 / (epoch + 1), **{SENT_AT: time.time()})
    trainer.finish()


def copy(name: str) -> None:
    results = Path("results")
    results.mkdir()
    shutil.copy(name, results / name)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["epochs", count, rate]:
            report(int(count), float(rate))
        case ["copy", name]:
            copy(name)
        case words:
            sys.exit(f"{words} is neither `epochs COUNT RATE` nor `copy FILE`")
