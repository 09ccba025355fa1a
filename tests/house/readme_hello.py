"""README's hello, compiled from README itself with README's own command, says what README says it says.

usage: readme_hello.py ROOT COMPILER. The first ```cpp block with finteam.hpp is hello.cpp; the `$ ` lines of the first
```console block after it are run, and what follows each is what it must print.
"""
import os
import re
import sys
import tempfile

import transcript

def main():
    root, compiler = os.path.abspath(sys.argv[1]), sys.argv[2]
    path = os.path.join(root, "README.md")
    if not os.path.exists(path):
        return "there is no README.md"
    with open(path, encoding="utf-8") as file:
        readme = file.read()
    if readme.count("\n") >= 200:
        return "README.md: 200 lines or more"
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.M | re.S)
    hello = next((i for i, (kind, text) in enumerate(blocks) if kind == "cpp" and "finteam.hpp>" in text), None)
    if hello is None:
        return "README.md has no ```cpp block that includes finteam.hpp"
    source = blocks[hello][1]
    if len(source.strip().splitlines()) > 12:
        return "hello has more than 12 lines"
    example = os.path.join(root, "examples/hello.cpp")
    if os.path.exists(example):
        with open(example, encoding="utf-8") as file:
            if file.read() != source:
                return "examples/hello.cpp is not README's hello"
    console = next((text for kind, text in blocks[hello + 1:] if kind == "console"), "")
    commands = transcript.commands_of(console)
    if len(commands) < 2 or commands[0][0][0] != "g++" or not any(expected for _, expected in commands):
        return "no ```console block after hello with `$ g++ …` and `$ ./… examples/mini-team …` and its output"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("single_include", "examples"):
            os.symlink(os.path.join(root, name), os.path.join(folder, name))
        with open(os.path.join(folder, "hello.cpp"), "w", encoding="utf-8") as file:
            file.write(source)
        for arguments, expected in commands:
            if arguments[0] == "g++":
                arguments[0] = compiler
            wrong = transcript.run(arguments, expected, folder)
            if wrong:
                return wrong
    print(f"{len(commands)} commands of README.md, as it says")
    return 0


sys.exit(main())
