#!/usr/bin/env python3
"""Writes tests/goldens/tokenizer/parity: what the tokenizers package says of 100,000 strings, for many tokenizers.

  python3 tools/make_tokenizer_parity.py [--corpus DIR] [--llama3 tokenizer.json] [--mistral tokenizer.model]

pool.json          what the strings are drawn from: characters, snippets, words. tests/text/strings.hpp draws the same
FILE.json          small tokenizers trained here on the corpus: sp (BPE with byte fallback), unigram, word_piece
golden.json        for each tokenizer: a file, what is changed in it, a hash of the ids of every 1,000 strings, some
                   strings and id sequences in full
build/mistral-v1/tokenizer.json    converted (not committed; its test is skipped where it is absent)

Needs tokenizers, transformers, and for unigram and mistral sentencepiece and protobuf. Texts hold only characters that
Unicode 14 assigns and on which the package's tables (some are older) agree with Unicode 14.
"""
import argparse
import base64
import copy
import json
import pathlib
import re
import tempfile
import unicodedata

from tokenizers import (Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers)

from make_tokenizer_goldens import PATTERN, ROOT, SNIPPETS, fnv

OUT = ROOT / "tests/goldens/tokenizer/parity"
STRINGS, BLOCK = 100_000, 1_000
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
GPT4O = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
GPT4 = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+|^\t|\p{Han}{2}+"
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"]
CODE = ["for (int i = 0; i < n; ++i) {\n", "    return x[i] * 2;\n", "}\n", "\tif (a != b) ", "def f(self, x):\n", "        pass\n",
        "import os\n", "# note: ", "=>", "::", "&&", "\"s\"", "'c'", "0x1F", "1e-9", "x_1", "self.rate", "std::vector<double>",
        "SELECT * FROM trades WHERE px > 99.5;", "<br>", "</td>", "\\n", "$HOME", "@property", "lambda: 0", "//", "/* */"]
NUMBERS = ["7.3%", "$1,234.5m", "€0.42", "Q3'24", "10-K/A", "17.5x", "(1,250)", "+25bp", "2024-11-05", "1.0850", "£3bn", "4,000"]
# What composes and decomposes: letters, marks of several classes, jamo, syllables, singletons.
COMBINING = ["AaEeOoUuNnIi", "\u0300-\u0345", "\u0323\u0331\u0327\u0328", "\u05b0-\u05bd", "\u064b-\u0655",
             "\u0915\u093c\u094d\u0937", "\u0e33\u0e38\u0e48", "\u1100-\u1112", "\u1161-\u1175", "\u11a8-\u11c2",
             "\uac00-\uac20", "\u304b\u306f\u3099\u309a", "\u212b\u2126\u1e9b\u0344\u0958\ufb2c\u2adc", "\u09c7\u09be\u0dd9\u0dcf",
             "\ufb01\ufb03\ufdfa\u00bd\u2460\uff21\u3300\u2003\u00a8", "\u00c5\u1ea4\u01d5\u1fb3\u03b1\u0345", "\u200d\ufe0f\u20dd"]


class Random:
    """splitmix64."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return ((z ^ (z >> 31)) & 0xFFFFFFFFFFFFFFFF) % n

    def of(self, items):
        return items[self.below(len(items))]


def string(n, pool):
    """String number n. tests/text/strings.hpp says the same in C++."""
    r = Random(n)
    kind = r.below(100)
    parts = []
    if kind < 20:
        for _ in range(1 + r.below(6)):
            parts.append(r.of(pool["snippets"]))
    elif kind < 40:
        near = r.of(pool["blocks"])
        for _ in range(1 + r.below(12)):
            parts.append(r.of(near) if r.below(10) < 8 else r.of(" \n1a'\t"))
    elif kind < 50:
        for _ in range(1 + r.below(8)):
            parts.append(r.of(r.of(pool["blocks"])))
    elif kind < 62:
        near = r.of(pool["combining"])
        for _ in range(2 + r.below(8)):
            parts.append(r.of(near if r.below(10) < 6 else r.of(pool["combining"])))
    elif kind < 85:
        for i in range(1 + r.below(12)):
            what = r.below(12)
            parts.append("" if i == 0 else "  " if what == 0 else "\n" if what == 1 else ", " if what == 2 else " ")
            parts.append(r.of(pool["numbers"]) if r.below(5) == 0 else r.of(pool["words"]))
    else:
        for _ in range(1 + r.below(6)):
            what = r.below(8)
            parts.append(" " * (1 + r.below(9)) if what == 0 else "\n" * (1 + r.below(4)) if what == 1 else
                         "\t" if what == 2 else r.of(pool["words"]) if what < 5 else r.of(pool["code"]))
    return "".join(parts)


def spread(spec):
    """The characters of "a-cx"."""
    return "".join("".join(map(chr, range(ord(a), ord(b) + 1))) if b else c
                   for c, a, b in ((m.group(0), m.group(1), m.group(2)) for m in re.finditer(r"(.)-(.)|.", spec)))


def agreed():
    """The characters that Unicode 14 assigns, of private use a few, without those that the package's older tables read
    otherwise, in blocks of 128."""
    forms = {name: getattr(normalizers, name)() for name in ("NFC", "NFD", "NFKC", "NFKD")}
    punctuation, digits = pre_tokenizers.Punctuation(), pre_tokenizers.Digits(True)
    lower, marks = normalizers.Lowercase(), normalizers.StripAccents()
    bert = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    left_out, blocks = [], {}
    for c in map(chr, range(0x110000)):
        k = unicodedata.category(c)
        if k in ("Cn", "Cs") or (k == "Co" and ord(c) & 0xFFF > 15):
            continue
        # A mark is told by its place among two others.
        order = unicodedata.normalize
        good = all(f.normalize_str(s) == order(name, s) for name, f in forms.items()
                   for s in (c, "\u0323" + c + "\u0334", "a\u0301" + c + "\u0300"))
        good = good and (len(punctuation.pre_tokenize_str(c + "a" + c)) == 3) == (k[0] == "P" or c in "$+<=>^`|~")
        good = good and (len(digits.pre_tokenize_str("a" + c)) == 2) == (k[0] == "N")
        good = good and (lower.normalize_str(c) == c.lower()) and (marks.normalize_str(c) == "") == (k[0] == "M")
        good = good and (bert.normalize_str(c) == "") == (k in ("Mn", "Cf", "Co") or (k == "Cc" and c not in "\t\n\r") or c == "\ufffd")
        if good:
            blocks.setdefault(ord(c) // 128, []).append(c)
        else:
            left_out.append(c)
    print(f"{sum(map(len, blocks.values())):,} characters, {len(left_out):,} left out")
    return ["".join(b) for b in blocks.values()]


def ranges(characters):
    out = []
    for c in map(ord, characters):
        if out and out[-1][1] + 1 == c:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def make_pool(corpus):
    blocks = agreed()
    ok = set("".join(blocks))
    words = {}
    for w in re.findall(r"[A-Za-z][a-z]+", corpus):
        words[w] = words.get(w, 0) + 1
    words = sorted(sorted(words, key=lambda w: (-words[w], w))[:400])
    snippets = [s for s in SNIPPETS if set(s) <= ok and "<|" not in s]
    pool = dict(ranges=ranges("".join(blocks)), snippets=snippets, words=words, numbers=NUMBERS, code=CODE,
                combining=["".join(c for c in spread(s) if c in ok) for s in COMBINING])
    (OUT / "pool.json").write_text(json.dumps(pool, ensure_ascii=False, separators=(",", ":")) + "\n")
    return dict(pool, blocks=blocks)


def added(id, content, special=True, **more):
    return dict(dict(id=id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=special),
                **more)


LLAMA_NORMALIZER = {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
LLAMA_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
GEMMA_DECODER = {"type": "Sequence", "decoders": LLAMA_DECODER["decoders"][:3]}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def train_sp(corpus):
    """Llama 2's layout: specials, bytes, then a BPE of characters."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.pre_tokenizer = pre_tokenizers.Split(Regex("▁*[^▁\n]+|▁+|\n+"), "isolated")
    alphabet = sorted(set("▁\n") | set(map(chr, range(33, 127))))
    t.train_from_iterator([corpus[i:i + 2000] for i in range(0, len(corpus), 2000)] + ["\n\n\n\n  \n" + " " * 16] * 50,
                          trainers.BpeTrainer(vocab_size=1300, show_progress=False, initial_alphabet=alphabet, limit_alphabet=140))
    model = json.loads(t.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    vocab = {name: i for i, name in enumerate(names + sorted(model["vocab"], key=model["vocab"].get))}
    model.update(vocab=vocab, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return dict(version="1.0", truncation=None, padding=None, added_tokens=[added(i, names[i]) for i in range(3)],
                normalizer=LLAMA_NORMALIZER, pre_tokenizer=None, post_processor={
                    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                             {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
                decoder=LLAMA_DECODER, model=model)


def small_charsmap():
    """A part of NFKC as SentencePiece compiles it; the whole has 240 kB. Among its keys: pairs of a letter and a mark."""
    import sentencepiece
    rules = {}
    for first, last in ((0xA0, 0x17F), (0x2000, 0x20AF), (0x2100, 0x2180), (0x3000, 0x3040), (0x1100, 0x1100),
                        (0xFB00, 0xFB10), (0xFDFA, 0xFDFB), (0xFF01, 0xFFE6), (0x0958, 0x0960), (0x1F130, 0x1F140)):
        for c in map(chr, range(first, last)):
            to = unicodedata.normalize("NFKC", c)
            if to != c:
                rules[c] = to
            apart = unicodedata.normalize("NFD", c)
            if len(apart) == 2 and unicodedata.normalize("NFC", c) != apart:
                rules[apart] = unicodedata.normalize("NFC", c)
    rules.update({"\t": " ", "\n": " ", "\r": " ", "\x0b": "", "\x7f": "", "\u200b": " ", "\ufeff": "", "\u00ad": ""})
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        line = lambda a, b: " ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n"
        (folder / "rules.tsv").write_text("".join(line(a, b) for a, b in rules.items()))
        (folder / "text.txt").write_text("the rate rose and the rate fell\n" * 50)
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text.txt"), model_prefix=str(folder / "m"), vocab_size=30, hard_vocab_limit=False,
            normalization_rule_tsv=str(folder / "rules.tsv"), minloglevel=2)
        from sentencepiece import sentencepiece_model_pb2
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString((folder / "m.model").read_bytes())
        return proto.normalizer_spec.precompiled_charsmap


def train_unigram(corpus):
    """T5's layout."""
    t = Tokenizer(models.Unigram())
    charsmap = small_charsmap()
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    t.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    t.train_from_iterator(corpus.splitlines(), trainers.UnigramTrainer(
        vocab_size=1200, show_progress=False, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"))
    d = json.loads(t.to_str())
    d["added_tokens"] = [added(i, c) for i, c in enumerate(["<pad>", "</s>", "<unk>"])]
    d["post_processor"] = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
                                                                    {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                           "pair": [], "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}}
    return d


def train_word_piece(corpus):
    """BERT's layout."""
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    t.train_from_iterator(corpus.splitlines(), trainers.WordPieceTrainer(
        vocab_size=1000, show_progress=False, special_tokens=special, initial_alphabet=list("éü日本"), limit_alphabet=120))
    d = json.loads(t.to_str())
    d["added_tokens"] = [added(i, c) for i, c in enumerate(special)]
    d["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    return d


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = dict(BYTES, add_prefix_space=True, use_regex=True)


def cases(args):
    """(name, file, {JSON pointer: value}): a name is a test."""
    def normalized(*types):
        return {"type": "Sequence", "normalizers": [t if isinstance(t, dict) else {"type": t} for t in types]}
    blanks = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
    yield "Llama 3", "../llama3.json", {}
    yield "Qwen2", "../plain.json", {"/normalizer": {"type": "NFC"}, "/pre_tokenizer": sequence(split(QWEN2), BYTES)}
    yield "gpt-oss", "../plain.json", {"/pre_tokenizer": sequence(split(GPT4O), BYTES)}
    yield "Phi-4", "../plain.json", {"/pre_tokenizer": sequence(split(GPT4, "Removed", True), BYTES)}
    yield "DeepSeek", "../plain.json", {"/pre_tokenizer": sequence(*map(split, DEEPSEEK), BYTES)}
    yield "BLOOM", "../plain.json", {"/pre_tokenizer": sequence(split(BLOOM), BYTES)}
    yield "GPT-2", "../plain.json", {"/pre_tokenizer": GPT2}
    yield "StarCoder", "../plain.json", {
        "/pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, dict(GPT2, add_prefix_space=False))}
    yield "Falcon", "../plain.json", {
        "/normalizer": {"type": "NFD"},
        "/pre_tokenizer": sequence({"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Digits", "individual_digits": False},
                                   split("[0-9][0-9][0-9]"), dict(GPT2, add_prefix_space=False))}
    yield "Llama 2", "sp.json", {}
    yield "Phi-3", "sp.json", {"/added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>", False, rstrip=True)]}
    yield "Mistral", "sp.json", {
        "/normalizer": None, "/pre_tokenizer": dict(METASPACE, prepend_scheme="first", split=False)}
    yield "Gemma", "sp.json", {
        "/normalizer": LLAMA_NORMALIZER["normalizers"][1], "/decoder": GEMMA_DECODER,
        "/pre_tokenizer": split(" ", "MergedWithPrevious", kind="String"),
        "/added_tokens": blanks + [added(None, c, False) for c in ("\n", "\n\n", "▁▁", "▁▁▁▁")]}
    yield "white space tokens in normalised text", "../plain.json", {
        "/added_tokens": "blanks", "/normalizer": normalized("NFKC"), "/post_processor": None}
    yield "unknown characters apart", "sp.json", {
        "/model/byte_fallback": False, "/model/fuse_unk": False, "/normalizer": normalized("NFKD", LLAMA_NORMALIZER),
        "/pre_tokenizer": dict(METASPACE, prepend_scheme="never"), "/decoder": dict(METASPACE, prepend_scheme="never")}
    yield "unknown characters fused", "sp.json", {
        "/model/byte_fallback": False, "/normalizer": normalized("NFD", "StripAccents", "Lowercase"),
        "/pre_tokenizer": sequence({"type": "Whitespace"}, METASPACE), "/decoder": None}
    yield "every behaviour", "sp.json", {
        "/normalizer": None, "/pre_tokenizer": sequence(
            split(r"\d+", "MergedWithNext"), split(r"[aeiou]", "MergedWithPrevious"), split(r"\p{P}", "Contiguous"),
            split(r"\w+", "Removed", True), split("th", "Isolated", kind="String"), split("er", "Contiguous", True, "String"))}
    yield "T5", "unigram.json", {}
    yield "Unigram with bytes", "unigram.json", {"/model/byte_fallback": True, "/model/vocab": "bytes", "/normalizer": normalized(
        {"type": "Strip", "strip_left": True, "strip_right": True}, "NFKC", "Lowercase"),
        "/pre_tokenizer": sequence({"type": "WhitespaceSplit"}, METASPACE)}
    yield "BERT", "word_piece.json", {}
    yield "BERT, cased", "word_piece.json", {
        "/normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": False,
                        "lowercase": False},
        "/decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False}}
    if args.llama3.exists():
        yield "the real Llama 3", str(args.llama3), {}
    if args.mistral.exists():
        yield "the real Mistral", str(convert(args.mistral)), {}


def convert(model):
    """Mistral's tokenizer.json, from what transformers reads from the SentencePiece model, under build/."""
    from transformers.convert_slow_tokenizer import SentencePieceExtractor
    read = SentencePieceExtractor(str(model)).extract(models.BPE)
    d = json.loads((OUT / "sp.json").read_text())
    d["model"].update(vocab=read["vocab"], merges=read["merges"])
    path = ROOT / "build/mistral-v1/tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(d, ensure_ascii=False))
    return path


def change(d, changes):
    """A tokenizer with the values at JSON pointers changed; words for what would be long to write out."""
    d = copy.deepcopy(d)
    for pointer, value in changes.items():
        *path, last = pointer.strip("/").split("/")
        at = d
        for key in path:
            at = at[key]
        at[last] = value
    return d


def resolve(d, changes):
    """What the words in the changes stand for."""
    changes = copy.deepcopy(changes)
    tokens = changes.get("/added_tokens")
    if tokens == "blanks":
        n = len(d["model"]["vocab"])
        changes["/added_tokens"] = [added(n + i, c, False, normalized=c[0] != "\t") for i, c in
                                    enumerate(["\n\n", "   ", "  ", "\t", "\t\t", "\u3000"])]
    elif tokens:
        new = len(d["model"]["vocab"])
        for token in tokens:
            if token["id"] is None:
                token["id"] = d["model"]["vocab"].get(token["content"], new)
                new += token["id"] == new
    if changes.get("/model/vocab") == "bytes":
        changes["/model/vocab"] = d["model"]["vocab"] + [[f"<0x{b:02X}>", 0.0] for b in range(256)]
    return changes


def load(d):
    """As user text is tokenised: special tokens are spelt out; other added tokens cannot be switched off, so they are
    left out unless they are white space (see read_added_token)."""
    d = dict(d, added_tokens=[a for a in d["added_tokens"] if a["special"] or not a["content"].strip().strip("▁")],
             post_processor=None)
    t = Tokenizer.from_str(json.dumps(d))
    t.encode_special_tokens = True
    return t


def golden(name, file, d, changes, texts):
    t = load(d)
    encoded = [e.ids for e in t.encode_batch_fast(texts, add_special_tokens=False)]
    hashes = [fnv([i for ids in encoded[b:b + BLOCK] for i in [*ids, 0x7FFFFFFF]]) for b in range(0, STRINGS, BLOCK)]
    whole = Tokenizer.from_str(json.dumps(d))
    n = whole.get_vocab_size()
    special = {a["id"] for a in d["added_tokens"] if a["special"]}
    decode = []
    for i in range(60):
        r = Random(10_000_000 + i)
        near = 3 + 256 if i % 2 == 0 else n  # where bytes are, if there are any
        ids = [r.below(min(near, n)) for _ in range(1 + r.below(12))] if i % 3 else encoded[i * 7]
        ids = [j for j in ids if whole.id_to_token(j) is not None]
        decode.append(dict(ids=ids, keep=whole.decode(ids, skip_special_tokens=False),
                           skip=whole.decode(ids, skip_special_tokens=True)))
    examples = [dict(n=i, ids=encoded[i]) for i in range(0, STRINGS, STRINGS // 25)]
    print(f"{name}: {sum(map(len, encoded)):,} ids of {len(texts):,} strings, {len(special)} special tokens")
    return dict(name=name, file=file, changes=changes, hashes=hashes, examples=examples, decode=decode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, default=ROOT.parent / "shared/data/corpora")
    parser.add_argument("--llama3", type=pathlib.Path, default=ROOT.parent / "shared/tokenizers/llama-3/tokenizer.json")
    parser.add_argument("--mistral", type=pathlib.Path, default=ROOT.parent / "shared/tokenizers/mistral-v1/tokenizer.model")
    parser.add_argument("--train", action="store_true", help="train anew: the same files, but for Unigram's scores")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    corpus = "".join((args.corpus / f"{role}.txt").read_text()[:400_000] for role in ("macro", "micro", "quant"))
    corpus = "".join(c for c in corpus if unicodedata.category(c) != "Cn")
    pool = make_pool(corpus)
    for name, train in (("sp", train_sp), ("unigram", train_unigram), ("word_piece", train_word_piece)):
        if args.train or not (OUT / f"{name}.json").exists():
            (OUT / f"{name}.json").write_text(json.dumps(train(corpus), ensure_ascii=False, separators=(",", ":")) + "\n")
        print(f"{name}.json: {(OUT / f'{name}.json').stat().st_size:,} bytes")
    texts = [string(n, pool) for n in range(STRINGS)]
    print(f"{sum(len(t.encode()) for t in texts):,} bytes, {len(set(texts)):,} different strings")
    rows = []
    for name, file, changes in cases(args):
        path = pathlib.Path(file)
        d = json.loads((path if path.is_absolute() else OUT / file).read_text())
        changes = resolve(d, changes)
        rows.append(golden(name, file if not path.is_absolute() else "", change(d, changes), changes, texts))
    (OUT / "golden.json").write_text("[" + ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in rows) + "]\n")


if __name__ == "__main__":
    main()
