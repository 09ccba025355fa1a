"""usage: bench.py PROGRAM MODELS: every question of the benches is answered on the smallest shape, and each row has its
fields, finite and in their bounds. No time is judged here. MODELS: a folder for the random checkpoint."""
import json
import math
import subprocess
import sys

program, models = sys.argv[1:]
FIELDS = ("tokens_per_s", "seconds_per_step", "bytes_per_step", "flops_per_step", "read_gbps", "peak_gops", "fraction")
QUESTIONS = ("read, 1 thread", "products", "attention, decode", "prefill", "decode", "team, writing", "team, reading", "load from safetensors",
             "classify")


def run(*arguments):
    command = [program, *arguments, "--shape", "mini-team", "--models", models, "--json", "-", "--seconds", "0.001",
               "--threads", "2"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def check(value, where):
    if isinstance(value, dict):
        for key, inner in value.items():
            check(inner, f"{where}.{key}")
    elif isinstance(value, float) and not (math.isfinite(value) and value >= 0):
        sys.exit(f"{where} is {value}")


answer = run("all")
names = [row["name"] for row in answer["rows"]]
if not {"processor", "threads", "compiler", "commit"} <= answer["machine"].keys():
    sys.exit(f"machine: {answer['machine']}")
missing = [name for name in QUESTIONS if name not in names]
if missing:
    sys.exit(f"no row of {missing} in {names}")
for row in answer["rows"]:
    check(row, row["name"])
    positive = [key for key in ("seconds_per_step", "read_gbps", "peak_gops", "fraction") if not row[key] > 0]
    if positive:
        sys.exit(f"{row['name']}: {positive} should be above 0: {row}")
    if not isinstance(row["shape"], str) or not isinstance(row["weights"], str) or row["sequences"] < 0:
        sys.exit(f"{row['name']}: {row}")
    if any(key not in row for key in FIELDS) or row["die"] not in ("same", "two", "core", "moved"):
        sys.exit(f"{row['name']}: {row}")
    by_hand = max(row["bytes_per_step"] / row["read_gbps"], row["flops_per_step"] / row["peak_gops"])
    if abs(by_hand / 1e9 / row["seconds_per_step"] / row["fraction"] - 1) > 1e-6:
        sys.exit(f"{row['name']}: the fraction is not that of its fields: {row}")
for weights in {row["weights"] for row in answer["rows"] if row["name"] == "decode"}:
    decoded = [row for row in answer["rows"] if row["name"] == "decode" and row["weights"] == weights]
    # Samples whose threads were moved while they ran stand beside nothing.
    beside = [row for row in decoded[1:] if row["by_die"].keys() == decoded[0]["by_die"].keys() == {row["die"]}]
    if [row["sequences"] for row in decoded] != [1, 3, 8] or not all("ratio_to_one" in row for row in beside):
        sys.exit(f"decode: {decoded}")

beside = run("decode", "--sequences", "3", "--peer", "echo $FINTEAM_BENCH_SEQUENCES sequences: 1.25e1 tokens/s")["rows"]
if len(beside) != 1 or beside[0]["peer_tokens_per_s"] != 12.5 or not beside[0]["ratio_to_peer"] > 0:
    sys.exit(f"a peer's figure is not that of its command: {beside}")
print(f"{len(answer['rows'])} rows")
