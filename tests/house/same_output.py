"""usage: same_output.py PROGRAM PROGRAM…: each prints something, and all print the same."""
import subprocess
import sys

outputs = {}
for program in sys.argv[1:]:
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout.strip()
    print(f"{program}:\n{output}")
    outputs.setdefault(output, []).append(program)
if "" in outputs:
    sys.exit("a program printed nothing")
if len(sys.argv) < 3 or len(outputs) != 1:
    sys.exit(f"{len(outputs)} different outputs")
