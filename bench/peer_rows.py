"""What bench/gpu_peer.py does without torch: the shapes, the operations of a step, the results file that it shares with
bench_gpu, and how the rows of both compare. Its test: tests/house/gpu_peer.py. Not here: any measurement."""
import json
import os

# As bench/shape.hpp has them.
SHAPES = {
    "llama-3.2-1b": {"d": 2048, "layers": 16, "h": 32, "g": 8, "e": 64, "f": 8192, "v": 128256, "tied": True},
    "llama-3-8b": {"d": 4096, "layers": 32, "h": 32, "g": 8, "e": 128, "f": 14336, "v": 128256, "tied": False},
    "mini-team": {"d": 192, "layers": 4, "h": 6, "g": 2, "e": 32, "f": 512, "v": 4096, "tied": True},
    "tiny": {"d": 64, "layers": 2, "h": 2, "g": 1, "e": 32, "f": 96, "v": 256, "tied": False},
}
KEY = ("name", "weights", "rows", "shape", "layers", "context")


def step_flops(c, rows, positions, logits):
    """Operations of a step: `rows` rows that all together see `positions` positions, and `logits` rows of logits."""
    blocks = c["layers"] * (2 * c["d"] * c["e"] * (c["h"] + c["g"]) + 3 * c["d"] * c["f"])
    attention = 4 * c["layers"] * c["h"] * c["e"] * positions
    return 2 * blocks * rows + 2 * c["v"] * c["d"] * logits + attention


def cache_bytes(c, tokens):
    """Of keys and values in bf16."""
    return 4 * c["layers"] * c["g"] * c["e"] * tokens


def key(row, **other):
    """What a row is of; `other` replaces fields."""
    return tuple((row | other).get(field) for field in KEY)


def is_right(row):
    return row["verdict"]["right"] is True


def with_row(rows, new):
    """The rows with this one of the peer, instead of one of the same key."""
    replaced = [new if "peer" in row and key(row) == key(new) else row for row in rows]
    return replaced if new in replaced else replaced + [new]


def has_row(rows, new):
    """Whether such a row of the peer stands there already, of the same versions, and right."""
    return any("peer" in row and key(row) == key(new) and row["peer"] == new["peer"] and is_right(row) for row in rows)


def with_ratios(rows):
    """The rows, ours with ratio_to_peer: the peer's seconds over ours, so above 1 ours is faster.

    The peer's row is the one of the same name, weights, rows, shape, layers and context; where it has none of those
    weights, its bf16 row stands for it (peer_weights says which). Rows that are not right, and a trial's, have no ratio.
    """
    peers = {key(row): row for row in rows if "peer" in row and is_right(row)}
    compared = []
    for row in rows:
        if "peer" not in row and not row.get("trial"):
            row = {name: value for name, value in row.items() if name not in ("ratio_to_peer", "peer_weights")}
            peer = peers.get(key(row)) or peers.get(key(row, weights="bf16"))
            if peer is not None and is_right(row):
                row["ratio_to_peer"] = peer["seconds_per_step"] / row["seconds_per_step"]
                row["peer_weights"] = peer["weights"]
        compared.append(row)
    return compared


def table(rows, shape):
    """Our rows of this shape beside the peer's, then what only the peer has, for a reader."""
    def line(row, ours, theirs, of, ratio, verdict):
        what = f"{row['name']:<20} {row['weights']:<7} {row['rows']:>5}"
        return f"{what} {ours:>12} {theirs:>12} {of:>7} {ratio:>8}  {verdict}"

    def ms(row):
        return f"{1e3 * row['seconds_per_step']:.4f}"

    rows = [row for row in rows if row["shape"] == shape]
    peers = {key(row): row for row in rows if "peer" in row}
    head = {"name": "what", "weights": "weights", "rows": "rows"}
    lines = [line(head, "ms a step", "peer", "of", "ratio", "verdict")]
    for row in rows:
        if "ratio_to_peer" in row:
            peer = peers.get(key(row, weights=row["peer_weights"]))
            lines.append(line(row, ms(row), ms(peer), row["peer_weights"], f"{row['ratio_to_peer']:.3f}", "both right"))
    for row in peers.values():
        if all(key(row) != key(ours) for ours in rows if "ratio_to_peer" in ours):
            lines.append(line(row, "-", ms(row), row["weights"], "-", "right" if is_right(row) else "WRONG"))
    return "\n".join(lines)


class Results:
    """The file; without a path, rows of this run alone. Rows of another device are refused with ValueError."""

    def __init__(self, path, device):
        self.path, self.machine, self.rows = path, {"device": device}, []
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                before = json.load(file)
            if before["machine"]["device"] != device:
                raise ValueError(f"{path}: expected rows of {device}, found of {before['machine']['device']}")
            self.machine, self.rows = before["machine"], before["rows"]

    def add(self, row):
        self.rows = with_row(self.rows, row)
        self.write()

    def write(self):
        """All rows, ratios anew; the file is the old or the new one at any time."""
        self.rows = with_ratios(self.rows)
        if not self.path:
            return
        unfinished = f"{self.path}.unfinished"
        with open(unfinished, "w", encoding="utf-8") as file:
            json.dump({"machine": self.machine, "rows": self.rows}, file, indent=1, sort_keys=True)
            file.write("\n")
        os.replace(unfinished, self.path)
