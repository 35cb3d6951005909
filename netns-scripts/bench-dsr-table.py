"""The table of bench-dsr.sh: medians with least and most, and DSR's against each other way's.

usage: bench-dsr-table.py RUNS      RUNS has lines of row, way, figure
"""

import statistics
import sys


def main(path):
    figures = {}
    for line in open(path):
        row, way, figure = line.rstrip("\n").split("\t")
        figures.setdefault(row, {}).setdefault(way, []).append(int(figure))
    print(f"{'':18} {'way':8} {'median':>8} {'least':>8} {'most':>8} {'runs':>5} {'dsr to it':>10}")
    for row, ways in figures.items():
        for way, runs in ways.items():
            median = statistics.median(runs)
            ratio = "" if way == "dsr" or not median else f"{statistics.median(ways['dsr']) / median:.2f}x"
            line = f"{row:18} {way:8} {median:8.0f} {min(runs):8} {max(runs):8} {len(runs):5} {ratio:>10}"
            print(line.rstrip())


main(*sys.argv[1:])
