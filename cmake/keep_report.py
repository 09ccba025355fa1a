#!/usr/bin/env python3
"""Runs a compiler and keeps what ptxas reports of it in OBJECT.ptxas; anything else that it says is passed on.

usage: keep_report.py COMPILER ARGUMENTS…
"""
import subprocess
import sys

done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
report = [line for line in done.stdout.splitlines() if "ptxas info" in line or "bytes stack frame" in line]
other = [line for line in done.stdout.splitlines() if line not in report and line.strip()]
if other:
    print("\n".join(other), file=sys.stderr)
if "-o" in sys.argv and report:
    with open(sys.argv[sys.argv.index("-o") + 1] + ".ptxas", "w", encoding="utf-8") as file:
        file.write("\n".join(report) + "\n")
sys.exit(done.returncode)
