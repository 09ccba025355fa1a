#!/usr/bin/env python3
"""No kernel spills a register, by ptxas' own report, on any architecture that it was compiled for.

usage: spills.py FOLDER ARCHITECTURES    the folder of the objects, and how many architectures there are in each report
"""
import pathlib
import re
import sys

folder, architectures = pathlib.Path(sys.argv[1]), int(sys.argv[2])
entry = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
spill = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
kernels, bad, seen = 0, [], set()
for report in sorted(folder.rglob("*.ptxas")):
    name = target = None
    for line in report.read_text(encoding="utf-8").splitlines():
        if match := entry.search(line):
            name, target = match.groups()
            seen.add(target)
            kernels += 1
        elif (match := spill.search(line)) and name and (int(match[2]) or int(match[3])):
            bad.append(f"{report.name}: {name} for {target}: {match[0]}")
print(f"{kernels} kernels on {', '.join(sorted(seen))}")
if bad or kernels == 0 or len(seen) != architectures:
    sys.exit("\n".join(bad) or f"expected reports for {architectures} architectures, found {len(seen)}")
