"""usage: gpu_peer.py ROOT: what bench/gpu_peer.py does without torch. Its shapes are those of bench/shape.hpp; rows of
the peer stand beside ours in one file, and ours get their ratios; what is missing is said, with status 2. Nothing is
measured here."""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = sys.argv.pop(1)
sys.path.insert(0, os.path.join(ROOT, "bench"))
import peer_rows  # noqa: E402


def row(seconds, weights="bf16", right=True, **more):
    return {"name": "decode", "weights": weights, "rows": 1, "shape": "llama-3-8b", "layers": 32, "context": 512,
            "seconds_per_step": seconds, "verdict": {"right": right}} | more


def peer(seconds, weights="bf16", right=True, **more):
    return row(seconds, weights, right, **{"peer": "transformers 5, torch 2"} | more)


def ratios(*rows):
    return [r.get("ratio_to_peer") for r in peer_rows.with_ratios(list(rows))]


class Shapes(unittest.TestCase):
    def test_are_those_of_the_benches(self):
        with open(os.path.join(ROOT, "bench", "shape.hpp"), encoding="utf-8") as file:
            source = file.read()
        vocabulary = int(re.search(r"c\.v = ([\d']+);\s*if", source)[1].replace("'", ""))
        found = {}
        for name, block in re.findall(r'if \(name == "(.*?)"\) \{(.*?)\}', source, re.S):
            numbers = {letter: int(n.replace("'", "")) for letter, n in re.findall(r"c\.(\w+) = ([\d']+)", block)}
            found[name] = {"v": vocabulary, "tied": "tie_word_embeddings = true" in block} | numbers
        self.assertEqual(found, peer_rows.SHAPES)

    def test_operations_of_a_step(self):
        c = {"d": 2, "layers": 3, "h": 2, "g": 1, "e": 4, "f": 5, "v": 7}
        blocks, head, attention = 3 * (2 * 2 * 4 * 3 + 3 * 2 * 5), 7 * 2, 3 * 4 * 8 * 10
        self.assertEqual(peer_rows.step_flops(c, 1, 10, 1), 2 * blocks + 2 * head + attention)
        self.assertEqual(peer_rows.cache_bytes(c, 10), 3 * 2 * 4 * 2 * 10)


class Ratios(unittest.TestCase):
    def test_are_the_peers_seconds_over_ours(self):
        self.assertEqual(ratios(row(2.0), peer(3.0)), [1.5, None])

    def test_are_to_the_same_weights_or_to_bf16(self):
        rows = peer_rows.with_ratios([row(1.0), row(1.0, "int8"), row(1.0, "int4"), peer(2.0), peer(3.0, "int8")])
        self.assertEqual([(r["ratio_to_peer"], r["peer_weights"]) for r in rows[:3]],
                         [(2.0, "bf16"), (3.0, "int8"), (2.0, "bf16")])

    def test_are_only_to_the_same_question(self):
        for other in ({"shape": "llama-3.2-1b"}, {"layers": 2}, {"context": 64}, {"name": "one expert"}, {"rows": 3}):
            self.assertEqual(ratios(row(2.0), peer(3.0, **other)), [None, None], other)

    def test_need_both_to_be_right(self):
        self.assertEqual(ratios(row(2.0, right=False), peer(3.0)), [None, None])
        self.assertEqual(ratios(row(2.0), peer(3.0, right=False)), [None, None])
        self.assertEqual(ratios(row(2.0, "int8"), peer(3.0, "int8", right=False), peer(4.0)), [2.0, None, None])

    def test_of_a_trial_are_none(self):
        self.assertEqual(ratios(row(2.0, trial=True), peer(3.0)), [None, None])

    def test_of_before_go_with_their_peer(self):
        self.assertEqual(ratios(row(2.0, ratio_to_peer=9.0, peer_weights="bf16")), [None])


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "rows.json")

    def read(self):
        with open(self.path, encoding="utf-8") as file:
            return json.load(file)

    def test_keep_our_rows_and_replace_the_peers(self):
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump({"machine": {"device": "D", "copy_gbps": 1.0}, "rows": [row(2.0), row(2.0, "int8")]}, file)
        results = peer_rows.Results(self.path, "D")
        results.add(peer(3.0))
        results.add(peer(4.0))
        after = self.read()
        self.assertEqual(after["machine"], {"device": "D", "copy_gbps": 1.0})
        self.assertEqual([r["seconds_per_step"] for r in after["rows"]], [2.0, 2.0, 4.0])
        self.assertEqual([r.get("ratio_to_peer") for r in after["rows"]], [2.0, 2.0, None])
        table = peer_rows.table(after["rows"] + [peer(5.0, name="prefill")], "llama-3-8b").splitlines()
        self.assertRegex(table[1], r"decode +bf16 +1 +2000.0000 +4000.0000 +bf16 +2.000  both right$")
        self.assertRegex(table[2], r"decode +int8 +1 +2000.0000 +4000.0000 +bf16 +2.000  both right$")
        self.assertRegex(table[3], r"prefill +bf16 +1 +- +5000.0000 +bf16 +-  right$")
        self.assertEqual(len(table), 4)

    def test_of_another_device_are_refused(self):
        peer_rows.Results(self.path, "D").add(peer(3.0))
        with self.assertRaisesRegex(ValueError, "expected rows of E, found of D"):
            peer_rows.Results(self.path, "E")

    def test_have_a_row_once_it_is_right_and_of_these_versions(self):
        self.assertTrue(peer_rows.has_row([peer(3.0)], peer(0.0)))
        self.assertFalse(peer_rows.has_row([peer(3.0)], peer(0.0, peer="transformers 6, torch 2")))
        self.assertFalse(peer_rows.has_row([peer(3.0, right=False)], peer(0.0)))
        self.assertFalse(peer_rows.has_row([row(3.0)], peer(0.0)))


class Program(unittest.TestCase):
    def run_it(self, *arguments):
        """Its status and what it says on stderr, where no package is to be found."""
        command = [sys.executable, "-S", "-B", os.path.join(ROOT, "bench", "gpu_peer.py"), *arguments]
        without = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=without)
        return done.returncode, done.stderr

    def test_says_what_is_missing(self):
        status, said = self.run_it("--device", "cpu")
        self.assertEqual(status, 2)
        self.assertRegex(said, "gpu_peer: torch is not there .*bring_dependencies --peer")

    def test_refuses_what_it_does_not_know(self):
        for option, found, expected in (
                ("--shape", "llama-9", "llama-9"), ("--part", "decode,tea", "tea is none of"),
                ("--weights", "int5", "int5 is none of"), ("--device", "gpu", "or cpu, found gpu")):
            status, said = self.run_it(option, found)
            self.assertEqual(status, 2)
            self.assertIn(expected, said)

    def test_takes_the_options_of_the_bench_that_ran_before(self):
        status, said = self.run_it(
            "--commit", "c", "--threads", "2", "--part", "products,decode", "--weights", "int4_zero", "--shape",
            "mini-team", "--layers", "2", "--context", "9", "--seconds", "0.1", "--again", "--json", "none.json")
        self.assertEqual((status, "torch is not there" in said), (2, True), said)


unittest.main()
