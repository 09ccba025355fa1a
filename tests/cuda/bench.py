"""usage: bench.py PROGRAM FOLDER: the benches of a GPU, over kernels that run on the host. Every question is answered,
with a right verdict and numbers that agree; a second run adds nothing, one that was stopped goes on; a wrong result is
said, and measured again. No time is judged here."""
import json
import math
import pathlib
import subprocess
import sys

program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
path = folder / "rows.json"
path.unlink(missing_ok=True)
PRODUCTS = ("qkv_proj 128x64", "o_proj 64x64", "gate_up_proj 192x64", "down_proj 64x96", "lm_head 256x64")
# A block's matrices and the head in bf16, and the keys and values of 41 tokens.
DECODE_BYTES = 2 * (2 * (2 * 64 * 32 * 3 + 3 * 64 * 96) + 256 * 64) + 41 * 2 * 32 * 2 * 2


def run(*more, weights="bf16,int8", context=40, commit="a", status=0):
    """The rows of the file, after a run that ends with this status, and what it said."""
    command = [program, "--trial", "--shape", "tiny", "--weights", weights, "--context", str(context), "--seconds", "0",
               "--threads", "2", "--json", path, "--commit", commit, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != status:
        sys.exit(f"{command}: expected status {status}, found {done.returncode}\n{done.stdout}{done.stderr}")
    return json.loads(path.read_text())["rows"], done.stdout + done.stderr


def expect(what, expected, found):
    if expected != found:
        sys.exit(f"{what}: expected {expected}, found {found}")


def key(row):
    return row["part"], row["name"], row["weights"], row["rows"], row.get("context")


def keep(rows):
    path.write_text(json.dumps({"machine": {"device": "emulated, 9.0"}, "rows": rows}))


def questions():
    for weights in ("bf16", "int8"):
        for name in PRODUCTS:
            yield from (("products", name, weights, rows, None) for rows in (1, 3, 8, 16, 32))
            if name != PRODUCTS[-1]:
                yield from (("products", f"{name}, prompt", weights, rows, None) for rows in (8, 32))
        yield from (("attention", f"attention, decode {tokens}", weights, 1, tokens) for tokens in (32, 128, 512))
        yield "attention", "attention, prompt 32", weights, 32, 32
        yield "decode", "decode", weights, 1, 40
        yield "prefill", "prefill", weights, 32, None
    yield "team", "one expert", "bf16", 1, 40
    yield "team", "three experts", "bf16", 3, 40
    yield "team", "three adapters", "bf16", 3, 40


def check(row):
    name = key(row)
    verdict = row["verdict"]
    if not (verdict["right"] is True and verdict["same_bits"] is True and 0 <= verdict["error"] <= verdict["allowed"]):
        sys.exit(f"{name}: {verdict}")
    numbers = [value for value in row.values() if isinstance(value, float)]
    expect(f"{name}: all numbers finite", True, all(math.isfinite(value) and value >= 0 for value in numbers))
    expect(f"{name}: limit", "copy" if row["bytes_per_step"] > 0 else "arithmetic", row["limit"])
    done, most = (("gbps", "copy_gbps") if row["limit"] == "copy" else ("tflops", "bf16_tflops"))
    if abs(row["fraction"] * row[most] / row[done] - 1) > 1e-9:
        sys.exit(f"{name}: the fraction is not that of its fields: {row}")
    if row["name"].startswith("three"):  # times are nobody's
        expect(f"{name}: ratio", True, row["ratio_to_one"] > 0)


rows, _ = run()
expect("questions", sorted(map(str, questions())), sorted(str(key(row)) for row in rows))
for one in rows:
    check(one)
of = {key(row): row for row in rows}
expect("bytes of a token", DECODE_BYTES, of["decode", "decode", "bf16", 1, 40]["bytes_per_step"])
expect("bytes of three experts", 3 * DECODE_BYTES, of["team", "three experts", "bf16", 3, 40]["bytes_per_step"])

again, said = run()
expect("rows of a run that has them all", rows, again)
expect("its table", len(rows), said.count("right"))

# Stopped after a part, with a row of a peer, which is nobody's of ours.
peer = of["decode", "decode", "int8", 1, 40] | {"peer": "p"}
gone = [row for row in rows if row["name"] in ("decode", "three experts")]
keep([row for row in rows if row not in gone] + [peer])
after, said = run()
expect("rows of a run that went on", sorted(map(str, map(key, rows + [peer]))), sorted(map(str, map(key, after))))
expect("a peer's row", True, peer in after)
changed = {row["name"] for row in after if row not in rows and row != peer}
expect("what was measured", {"decode", "one expert", "three experts"}, changed)

# One row is wrong, is said to be, and is measured again; of another commit it stands in the place of the first's.
decode = ("decode", "decode", "bf16", 1, 40)
few = {"weights": "bf16", "commit": "b"}
wrong, said = run("--part", "decode", "--tolerance", "0", **few, status=1)
expect("rows of another commit", len(after), len(wrong))
verdict = next(row["verdict"] for row in wrong if key(row) == decode)
expect("its verdict", (False, 0.0, True), (verdict["right"], verdict["allowed"], "WRONG" in said))
mended, _ = run("--part", "decode", **few)
found = [(row["commit"], row["verdict"]["right"]) for row in mended if key(row) == decode]
expect("a row that was wrong", [("b", True)], found)
longer, _ = run("--part", "decode", context=8, **few)
expect("rows of another context, too", len(mended) + 1, len(longer))

path.write_text(path.read_text().replace("emulated, 9.0", "another"))
_, said = run("--part", "decode", **few, status=1)
expect("rows of another device are refused", True, 'expected rows of "emulated, 9.0", found of "another"' in said)
print(f"{len(rows)} rows")
