#!/bin/bash
fit-line --data points.csv --epochs 3000
