"""usage: format.py ROOT CLANG_FORMAT: our C++ is as .clang-format (version 14, Debian 12's) writes it."""
import os
import re
import subprocess
import sys

root, program = sys.argv[1:]
version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
if not re.search(r"\bversion 14\.", version):
    print(f"SKIPPED: other versions format differently from clang-format 14: {version.strip()}")
    sys.exit(77)
files = []
for top in ("include", "tests", "examples", "bench", "tools"):
    for folder, _, names in os.walk(os.path.join(root, top)):
        files += [os.path.join(folder, name) for name in names if name.endswith((".hpp", ".cpp", ".cu", ".cuh"))]
done = subprocess.run([program, "--dry-run", "-Werror", "--style=file", *sorted(files)], capture_output=True, text=True)
wrong = sorted(set(re.findall(r"^(.*?):\d+:\d+: error", done.stderr, re.M)))
print("\n".join(os.path.relpath(path, root) for path in wrong) or f"{len(files)} files")
sys.exit("run clang-format -i on these" if done.returncode else 0)
