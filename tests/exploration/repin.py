"""Writes the counts of the explorations: `python -m tests.exploration.repin`.

Look at what has changed: a row that is new makes states, and one that was dropped takes some away.
"""

import json

from tests.exploration.products import PINS, surveys


def main() -> int:
    """Explores everything, and writes what it has counted unless something is wrong."""
    found = list(surveys())
    wrong = [
        text for entry in found for text in (entry.violation, *entry.never, *entry.restless) if text
    ]
    if wrong:
        print("\n".join(wrong))
        return 1
    PINS.write_text(json.dumps({entry.name: entry.counts for entry in found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
