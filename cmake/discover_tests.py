#!/usr/bin/env python3
"""Makes each case of a Catch2 program a ctest test: its name behind a prefix, its tags as labels.

usage: discover_tests.py PROGRAM CATCH_MAJOR PREFIX LABELS OUT
Catch2's own script knows labels only in version 3, and splits names at brackets and semicolons.
"""
import os
import re
import subprocess
import sys


def ask(program, *arguments):
    """The lines of a listing. Version 2 exits with the number of tests, so only a crash is an error."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, encoding="utf-8")
    if done.returncode < 0 or done.stderr.strip():
        sys.exit(f"{program} {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout.splitlines()


def bracket(text):
    """A CMake bracket argument, which takes any text as it is."""
    fence = "=" * 4
    assert f"]{fence}]" not in text
    return f"[{fence}[{text}]{fence}]"


def spec_of(name):
    """A Catch2 test specification that matches this name and no other."""
    return re.sub(r'([\\,\[\]"~])', r"\\\1", name)


def main():
    program, catch_major, prefix, labels, out = sys.argv[1:]
    listing = ["--list-test-names-only"] if catch_major == "2" else ["--list-tests", "--verbosity", "quiet"]
    names = [line for line in ask(program, *listing) if line.strip()]
    tags = {name: [] for name in names}
    for line in ask(program, "--list-tags"):
        for tag in re.findall(r"\[([^\]]+)\]", line):
            if not tag.startswith("."):
                for name in ask(program, f"[{tag}]", *listing):
                    if name in tags and tag not in tags[name]:
                        tags[name].append(tag)
    script = []
    for name in names:
        if name != name.strip() or not name.isprintable():
            sys.exit(f"{program}: the name of this test cannot be a test's name: {name!r}")
        test = bracket(prefix + name)
        every = labels.split(",") + [tag for tag in tags[name] if tag not in labels.split(",")]
        arguments = f"{bracket(spec_of(name))} {'-w NoTests' if catch_major == '2' else ''}"
        script.append(f"add_test({test} {bracket(program)} {arguments})")
        script.append(f"set_tests_properties({test} PROPERTIES TIMEOUT 300 LABELS {bracket(';'.join(every))})")
        # A test that cannot run here says so with WARN("skipped: …"); ctest then counts it as skipped, not as passed.
        script.append(f'set_tests_properties({test} PROPERTIES SKIP_REGULAR_EXPRESSION "skipped: ")')
        if catch_major != "2":
            script.append(f"set_tests_properties({test} PROPERTIES SKIP_RETURN_CODE 4)")
    temporary = out + ".tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write("\n".join(script) + "\n")
    os.replace(temporary, out)


main()
