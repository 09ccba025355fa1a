"""Transcripts: `$ command` lines, each followed by what it prints. Numbers may differ as instruction sets differ."""
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


def run(arguments, expected, folder):
    """Runs a command in a folder; returns what is wrong, or None."""
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        return f"{shlex.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    wrong = difference(expected, done.stdout)
    return wrong and f"{shlex.join(arguments)}: {wrong}\n--- expected\n{expected}\n--- printed\n{done.stdout}"
