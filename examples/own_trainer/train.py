"""Fits a line to the points of a table: a trainer that can be watched and stopped."""

import argparse
import csv
import json
import time
from pathlib import Path

from fsm_worker import trainer

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--epochs", type=int, default=100)
options = parser.parse_args()

with options.data.open(newline="") as file:
    points = [(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)]

slope = intercept = 0.0
trainer.start(max_epochs=options.epochs)
for epoch in range(options.epochs):
    misses = [slope * x + intercept - y for x, y in points]
    loss = sum(miss * miss for miss in misses) / len(points)
    slope -= 0.01 * sum(miss * x for miss, (x, _) in zip(misses, points, strict=True)) / len(points)
    intercept -= 0.01 * sum(misses) / len(points)
    trainer.report(epoch=epoch, loss=loss)
    if trainer.should_stop():
        break
    time.sleep(0.2)  # so that there is something to watch

Path("models").mkdir(exist_ok=True)
line = {"slope": slope, "intercept": intercept}
Path("models/line.json").write_text(json.dumps(line) + "\n")
trainer.finish()
