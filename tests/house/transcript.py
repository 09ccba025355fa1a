"""Transcripts: `$ command` lines, each followed by what it prints. Numbers may differ as instruction sets differ.

A command that fails says so on standard error, which follows what it prints, and in a last line: `exit 1`. Where …
comes first, only the last line counts: the others are another library's words. $OUT is a folder that goes away after the transcript.
"""
import re
import shlex
import subprocess

TOLERANCE = 2e-3  # of a number, or of 1 if it is less: bf16 sums in another order move a probability by less


def commands_of(text):
    """[(arguments, expected output)] of a transcript."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((shlex.split(line[2:]), []))
        elif found:
            found[-1][1].append(line)
    return [(arguments, "\n".join(lines).strip()) for arguments, lines in found]


def difference(expected, printed):
    """None if the two say the same, else where they part."""
    words = [re.findall(r"\d+\.\d+(?:e[+-]?\d+)?|\S+?(?=\d+\.\d)|\S+", text) for text in (expected, printed)]
    for left, right in zip(*words):
        try:
            near = abs(float(left) - float(right)) <= TOLERANCE * max(1, abs(float(left))) and "." in left
        except ValueError:
            near = False
        if left != right and not near:
            return f"expected {left!r}, found {right!r}"
    if len(words[0]) != len(words[1]):
        return f"expected {len(words[0])} words, found {len(words[1])}"
    return None


def run(arguments, expected, folder, out=None):
    """Runs a command in a folder; returns what is wrong, or None. out: the folder that is called $OUT."""
    command = [argument.replace("$OUT", out) if out else argument for argument in arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    printed = done.stdout
    if done.returncode != 0:
        printed += f"{done.stderr}\nexit {done.returncode}"
    if out:
        printed = printed.replace(out, "$OUT")
    lines = expected.splitlines()
    if lines and lines[0] == "…":
        expected, printed = lines[-1], printed.splitlines()[-1]
    wrong = difference(expected, printed)
    return wrong and f"{shlex.join(arguments)}: {wrong}\n--- expected\n{expected}\n--- printed\n{printed}"
