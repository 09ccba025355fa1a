"""usage: example_output.py ROOT PROGRAM TRANSCRIPT: an example prints what its transcript says (run at ROOT)."""
import sys

import transcript

root, program, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    commands = transcript.commands_of(file.read())
if not commands:
    sys.exit(f"{path}: no line that starts with `$ `")
for arguments, expected in commands:
    wrong = transcript.run([program, *arguments[1:]], expected, root)
    if wrong:
        sys.exit(wrong)
