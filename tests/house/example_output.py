"""usage: example_output.py ROOT PROGRAM TRANSCRIPT: an example prints what its transcript says (run at ROOT).

A transcript may call other examples, which lie beside the program.
"""
import os
import sys
import tempfile

import transcript

root, program, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    commands = transcript.commands_of(file.read())
if not commands:
    sys.exit(f"{path}: no line that starts with `$ `")
with tempfile.TemporaryDirectory() as folder:
    for arguments, expected in commands:
        other = os.path.join(os.path.dirname(program), arguments[0])
        out = os.path.join(os.path.realpath(folder), "out")
        wrong = transcript.run([other, *arguments[1:]], expected, root, out)
        if wrong:
            sys.exit(wrong)
