"""The table of bench.sh, and its JSON: medians with least and most, and ratios as the medians of the rounds' own, since
the runs of a round lie side by side in time.

usage: bench-table.py RUNS ROUNDS SECONDS LOAD JSON      RUNS has lines of row, engine, round, figure
"""

import json
import os
import statistics
import sys

UNITS = {
    "bulk-1": ("Gbit/s", 1), "bulk-8": ("Gbit/s", 1), "packets": ("k/s", 1000), "connections": ("/s", 1),
    "p50": ("us", 1), "p99": ("us", 1), "idle": ("% CPU", 1),
}
AGAINST = ("nft", "haproxy", "nginx", "none", "other")


def main(path, rounds, seconds, load, to):
    figures = {}
    for line in open(path):
        row, engine, turn, figure = line.rstrip("\n").split("\t")
        figures.setdefault((row, engine), {})[int(turn)] = float(figure)
    items = [item(figures, row, engine) for row, engine in sorted(figures, key=lambda of: (list(UNITS).index(of[0]), of[1] not in ("tungate", "other"), of[1]))]
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as control:
        print(f"\n{rounds} rounds of {seconds} s, {os.cpu_count()} CPUs, kernel {os.uname().release}, {control.read().strip()}")
    print(f"load average before the first: {load} (of anything above 0.5, believe no column)")
    print_table(items)
    if to:
        with open(to, "w") as file:
            json.dump({"schema": "tungate/v1", "kind": "LabBench", "items": items}, file, indent=1)
            file.write("\n")


def item(figures, row, engine):
    runs = figures[row, engine]
    # Of a time, what is added counts; of a rate, how many times as much.
    compare = (lambda a, b: a - b) if row in ("p50", "p99") else (lambda a, b: a / b if b else None)
    others = {}
    for other in AGAINST:
        pairs = [compare(runs[n], figure) for n, figure in figures.get((row, other), {}).items() if n in runs]
        if other != engine and pairs and None not in pairs:
            others[other] = round(statistics.median(pairs), 3)
    return {
        "name": row, "engine": engine, "unit": UNITS[row][0].replace("k/s", "/s"),
        "median": statistics.median(runs.values()), "min": min(runs.values()), "max": max(runs.values()),
        "plus" if row in ("p50", "p99") else "times": others, "runs": list(runs.values()),
    }


def print_table(items):
    print(f"{'':12} {'engine':14} {'median':>8} {'min':>8} {'max':>8}  {'unit':7}" + "".join(f"{name:>9}" for name in AGAINST))
    for one in items:
        unit, per = UNITS[one["name"]]
        numbers = "".join(f" {one[key] / per:8.2f}" for key in ("median", "min", "max"))
        others = one.get("times", one.get("plus"))
        form = "{:.2f}x" if "times" in one else "{:+.0f}"
        ratios = "".join(f"{form.format(others[name]) if name in others else '':>9}" for name in AGAINST)
        print(f"{one['name']:12} {one['engine']:14}{numbers}  {unit:7}{ratios}".rstrip())


main(*sys.argv[1:])
