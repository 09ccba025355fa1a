#!/usr/bin/env python3
"""Writes tests/goldens/tokenizer: two small tokenizers in Llama 3's layout, and what Hugging Face's packages say of
random Unicode strings, random ids and conversations. Needs tokenizers and transformers.

  python3 tools/make_tokenizer_goldens.py [--corpus DIR] [--llama3 tokenizer.json]

llama3.json        merges as "a b", ignore_merges, words without merges: what Llama 3 ships
plain.json         the same without ignore_merges, and merges as ["a", "b"]: what newer packages write
strings.jsonl      text; ids (llama3.json); plain, big: FNV-1a of the ids of plain.json and of the real Llama 3 tokenizer
decode.jsonl       ids (llama3.json) and their text, special tokens kept
chat.jsonl         messages, the template's text, and its ids

Texts hold only characters that Unicode 14 assigns (the tables of Debian 12's PCRE2 and of this Python), because a
character that one side does not know yet is cut differently.
"""
import argparse
import json
import pathlib
import random
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
SNIPPETS = [
    "Revenue rose 7.3% to $1,234.5m", "EPS of €0.42", " EBITDA", " Q3'24", "10-K/A", "P/E: 17.5x", "(1,250)", "£3bn", "¥100",
    "bps", "+0.25%", "S&P 500", "Moody's", "We'll", "they're", "I'VE", "don't", "it'S", "'\u017f", "'Re", "'\u212a",
    "int main() { return 0; }\n", "if (x != y && !z)\r\n", "for i in range(10):\n    print(i)\n", "\t\tx += 1;", "a->b::c",
    "https://example.com/?q=1&r=%20", "{\"k\": [1, 2]}", "<|eot_id|>", "<|begin_of_text|>", "<|note|>", "[INST]",
    "\u180e", "\u00a0", "\u3000", "\u0085", "\u2028", "\u2029", "\u200b", "\u200d", "\ufeff", "\u1680", "\u202f", "\u205f",
    "\x0b", "\x0c", "\x1c", "\x1f", "\r\n", "\n\n", "\r", " \n ", "   ", "\t", "  \r\n  ", " ", " ", " ", "\n",
    "👩‍👩‍👧", "👍🏽", "🏳️‍🌈", "🇺🇳", "e\u0301", "n\u0303o", "ก็", "नमस्ते", "한국어", "各国の株価", "Äpfel", "Ünal", "ß", "ſ", "İ", "ı",
    "٣٤٥", "१२३४", "０１２", "Ⅻ", "½", "²", "㊿", "𝟘𝟙", "௧௨", "Привет", "Ελλάδα", "שלום", "مرحبا", "ǅ", "ʰ", "ª", "ﬁ",
    "\u0300", "\u20dd", "—", "…", "“q”", "·", "€", "\u00ad", "\ue000", "\U000f0000", "\U0010ffff", "\x00", "\x7f"]


def assigned():
    """The characters that Unicode 14 assigns (no surrogates, no private use), in blocks of 128, so that small scripts
    are drawn as often as large ones."""
    blocks = {}
    for c in map(chr, range(0x110000)):
        if unicodedata.category(c) not in ("Cn", "Cs", "Co"):
            blocks.setdefault(ord(c) // 128, []).append(c)
    return list(blocks.values())


def random_text(rng, blocks, corpus):
    """One string of one of four kinds."""
    kind = rng.random()
    if kind < 0.3:
        return "".join(rng.choice(SNIPPETS) for _ in range(rng.randint(1, 6)))
    if kind < 0.55:
        near = rng.choice(blocks)
        return "".join(rng.choice(near) if rng.random() < 0.8 else rng.choice(" \n1a'\t") for _ in range(rng.randint(1, 9)))
    if kind < 0.7:
        return "".join(rng.choice(rng.choice(blocks)) for _ in range(rng.randint(1, 6)))
    start = rng.randrange(len(corpus) - 100)
    text = corpus[start:start + rng.randint(1, 60)]
    if rng.random() < 0.5:
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(SNIPPETS) + text[at:]
    return text


def train(corpus):
    """A byte-level BPE of 1,200 tokens, as a dictionary in the layout of Llama 3's tokenizer.json."""
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus.splitlines(True), trainers.BpeTrainer(
        vocab_size=1200, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    d = json.loads(t.to_str())
    vocab = d["model"]["vocab"]
    for word in ["ĠEBITDA", "Ġcompany's", "¥100", "ĠFederal", "ĠÐ¿ÑĢÐ¸"]:  # reached by ignore_merges only
        vocab.setdefault(word, len(vocab))
    first = len(vocab)
    d["added_tokens"] = [dict(id=first + i, content=c, single_word=False, lstrip=False, rstrip=False,
                              normalized=False, special=c in SPECIAL) for i, c in enumerate(SPECIAL + ["<|note|>"])]
    bos = SPECIAL[0]
    d["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                  {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {bos: {"id": bos, "ids": [first], "tokens": [bos]}}}]}
    return d


def write(path, d, as_text):
    """A tokenizer with its merges in one of the two forms."""
    halves = [m.split(" ") if isinstance(m, str) else m for m in d["model"]["merges"]]
    d["model"]["merges"] = [" ".join(m) for m in halves] if as_text else halves
    path.write_text(json.dumps(d, ensure_ascii=False, separators=(",", ":")) + "\n")


def load(path):
    """As user text is tokenised: special tokens are spelt out. Added ones that are not special cannot be switched off,
    so they are left out of the file."""
    d = json.loads(path.read_text())
    d["added_tokens"] = [a for a in d["added_tokens"] if a["special"]]
    t = Tokenizer.from_str(json.dumps(d))
    t.encode_special_tokens = True
    return t


def fnv(ids):
    """FNV-1a of 64 bits over the ids as little-endian 32-bit numbers."""
    h = 0xCBF29CE484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows))


def conversations(rng, corpus):
    """Ordinary conversations, with whitespace of every sort at the ends of contents."""
    spaces = ["", " ", "\n", "\u00a0", "\u3000\t", "\x1c", "\u2028", "\r\n\r\n", "\u0085"]
    for _ in range(24):
        roles = (["system"] if rng.random() < 0.5 else []) + ["user", "assistant"] * rng.randint(0, 2) + ["user"]
        yield [{"role": r, "content": rng.choice(spaces) + corpus[(s := rng.randrange(len(corpus) - 80)):s + rng.randint(0, 40)] +
                rng.choice(spaces)} for r in roles]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, default=ROOT.parent / "shared/data/corpora")
    parser.add_argument("--llama3", type=pathlib.Path, default=ROOT.parent / "shared/tokenizers/llama-3/tokenizer.json")
    args = parser.parse_args()
    out = ROOT / "tests/goldens/tokenizer"
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(2024)
    corpus = "".join((args.corpus / f"{role}.txt").read_text()[:400_000] for role in ("macro", "micro", "quant"))
    corpus = "".join(c for c in corpus if unicodedata.category(c) != "Cn")

    d = train(corpus)
    write(out / "llama3.json", d, as_text=True)
    d["model"]["ignore_merges"] = False
    write(out / "plain.json", d, as_text=False)

    small, plain, big = load(out / "llama3.json"), load(out / "plain.json"), load(args.llama3)
    blocks, texts = assigned(), {}
    while len(texts) < 2000:
        texts[random_text(rng, blocks, corpus)] = None
    ids = lambda t, text: t.encode(text, add_special_tokens=False).ids
    write_lines(out / "strings.jsonl", ({"text": s, "ids": ids(small, s), "plain": fnv(ids(plain, s)),
                                         "big": fnv(ids(big, s))} for s in texts))

    whole = Tokenizer.from_file(str(out / "llama3.json"))
    rows = [[rng.randrange(whole.get_vocab_size()) for _ in range(rng.randint(1, 12))] for _ in range(100)]
    rows += [[rng.randrange(256) for _ in range(8)] for _ in range(100)]
    write_lines(out / "decode.jsonl", ({"ids": r, "text": whole.decode(r, skip_special_tokens=False)} for r in rows))

    chat = PreTrainedTokenizerFast(tokenizer_object=whole, bos_token=SPECIAL[0], eos_token="<|eot_id|>",
                                   clean_up_tokenization_spaces=False)
    chat.chat_template = TEMPLATE
    write_lines(out / "chat.jsonl", (
        {"messages": m, "text": (text := chat.apply_chat_template(m, tokenize=False, add_generation_prompt=True)),
         "ids": whole.encode(text, add_special_tokens=False).ids} for m in conversations(rng, corpus)))
    print(f"tokenizers {tokenizers.__version__}:", *(f"{p.name} {p.stat().st_size:,} bytes" for p in sorted(out.iterdir())))


if __name__ == "__main__":
    main()
