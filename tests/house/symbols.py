"""No way to end the process or to print is called from a Release object of hello.

usage: symbols.py NM OBJECT. What hello itself uses (std::cout and its initialiser) is allowed, and snprintf, with which
the JSON library writes numbers.
"""
import re
import subprocess
import sys

FORBIDDEN = re.compile(
    r"^(abort|exit|_exit|_Exit|quick_exit|at_quick_exit|atexit|__assert_fail|__assert_perror_fail|std::__glibcxx_assert_fail"
    r"|(__)?v?(f|s|d|as)?printf(_chk)?|puts|putchar|putc|fputs|fputc|perror|psignal"
    r"|std::(cerr|clog|cin|wcout|wcerr|wclog|wcin)|std::abort|std::exit"
    r"|setlocale|signal|raise|kill|srand|rand)(\(|$)")


def names(nm_output):
    """The names of undefined symbols, without versions."""
    found = []
    for line in nm_output.splitlines():
        match = re.match(r"^\s*[Uwv] (.*)$", line)
        if match:
            found.append(match.group(1).split("@")[0])
    return found


def self_test():
    planted = ["abort", "exit", "__assert_fail", "printf", "__printf_chk", "fprintf", "__vfprintf_chk", "sprintf", "puts",
               "std::cerr", "std::clog"]
    allowed = ["snprintf", "__snprintf_chk", "vsnprintf", "std::cout", "std::ios_base::Init::Init()", "pcre2_match_8",
               "std::ostream::flush()", "finteam::exit_layer(int)"]
    listing = "\n".join(f"                 U {name}" for name in planted + allowed)
    assert [name for name in names(listing) if FORBIDDEN.match(name)] == planted


def main():
    self_test()
    nm, path = sys.argv[1:]
    undefined = names(subprocess.run([nm, "-C", "-u", path], check=True, capture_output=True, text=True).stdout)
    if "pcre2_compile_8" not in undefined:
        return f"{path} does not hold the library: it never calls PCRE2"
    found = [name for name in undefined if FORBIDDEN.match(name)]
    print(f"{len(undefined)} undefined symbols")
    return "called from hello: " + ", ".join(found) if found else 0


sys.exit(main())
