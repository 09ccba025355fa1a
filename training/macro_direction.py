"""macro_direction: a direction-word cloze, derived by rule from the Federal Reserve corpora (public domain).

A sentence about inflation, employment, growth, rates or spending that holds exactly one word of a closed list of
direction words becomes an item: the word is replaced by ____ and the answer is rose, fell or unchanged.
Items for test and valid come only from documents that the recipe never pre-trains on: corpora/macro.heldout.txt
(test) and the documents of macro.txt that text.held_out() sets aside by hash. A test or valid sentence that also
occurs in a training document (minutes repeat themselves) is dropped.

    python training/macro_direction.py --data DATA --out training/data
"""
import argparse
import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from text import documents, held_out

INSTRUCTION = ("A word of direction was removed from the sentence and replaced by ____. Say in which direction it pointed. "
               "Reply with one word: rose, fell or unchanged.")
CHOICES = ("rose", "fell", "unchanged")

# Forms that can stand in a blank without the article giving them away ("an increase", "a decline" are left out).
FORMS = {
    "rose": "rose risen rising rises increased increasing climbed climbing grew grown accelerated accelerating advanced "
            "strengthened strengthening jumped surged expanded expanding",
    "fell": "fell fallen falling falls declined declining decreased decreasing dropped dropping slowed slowing weakened "
            "weakening plunged plummeted contracted contracting diminished diminishing",
    "unchanged": "unchanged flat steady stable stabilized",
}
AFTER_TO = {"rose": "rise increase climb grow accelerate",  # only as verbs: "to rise", "would fall"
            "fell": "fall decline decrease slow", "unchanged": "stabilize"}
# Words that give a direction too; a sentence that holds one of them, or two of the above, makes no item.
OTHERS = ("increases declines decreases drops gains gain gained grows climbs slows accelerates weakens strengthens expands "
          "contracts jump surge plunge jumps upturn downturn higher lower up down edged rebound rebounded recovered upward "
          "downward reduced reduction raised lowered boosted decelerated deceleration acceleration eased easing ease softened "
          "softer moderated moderating worsened deteriorated shrank shrinking shrunk improved tightened narrowed widened "
          "more less faster slower stronger weaker doubled tripled halved lessened picked strengths cut cuts raise raising "
          "lowering strengthen expand drop weaken contract diminish soared soaring stability leveled lift lifted constant").split()
SUBJECT = re.compile(
    r"\b(inflation|prices?|employment|unemployment|payrolls?|jobs|hours|growth|GDP|output|production|productivity|rates?|"
    r"yields?|spreads?|spending|consumption|expenditures?|outlays|investment|sales|starts|orders|shipments|inventories|income|wages?|"
    r"compensation|earnings|exports?|imports?|credit|loans?|lending|debt|deposits|dollar|deficit|reserves|economy|activity|demand|"
    r"claims|confidence|sentiment|housing|M2|money stock|delinquencies|premiums?|expectations|participation)\b", re.IGNORECASE)
LABEL_OF = {form: label for label, forms in FORMS.items() for form in forms.split()}
LABEL_OF_VERB = {form: label for label, forms in AFTER_TO.items() for form in forms.split()}
WORD = re.compile(r"[A-Za-z]+")
TRANSITIVE = re.compile(r" (the|its|their|our|his|a|an|this|that|these|those)\b")  # "to slow the economy" is an act
VERB_BEFORE = {"to", "will", "would", "could", "might", "may", "should", "can", "did", "not", "further"}


def direction_word(sentence: str):
    """(start, end, label) of the sentence's only direction word, or None."""
    found = []
    before = ""
    for match in WORD.finditer(sentence):
        word = match.group().lower()
        if word in OTHERS:
            return None
        if word in LABEL_OF:
            found.append((match.start(), match.end(), LABEL_OF[word]))
        elif word in LABEL_OF_VERB:
            if before not in VERB_BEFORE:
                return None
            if TRANSITIVE.match(sentence, match.end()):
                return None
            found.append((match.start(), match.end(), LABEL_OF_VERB[word]))
        before = word
    return found[0] if len(found) == 1 else None


def cloze(document: str):
    """(sentence with ____, sentence, label) of each usable sentence of a document."""
    for paragraph in document.split("\n"):
        for sentence in re.split(r"(?<=[a-z0-9\)%][.?!]) +(?=[A-Z\"“])", paragraph):
            sentence = sentence.strip()
            if not 50 <= len(sentence) <= 320 or not SUBJECT.search(sentence):
                continue
            hit = direction_word(sentence)
            if hit and sentence[0].isupper() and sentence[-1] in ".?!":
                start, end, label = hit
                yield f"{sentence[:start]}____{sentence[end:]}", sentence, label


@lru_cache(maxsize=1)
def items(data: Path) -> dict[str, list[dict]]:
    """{"train" | "valid" | "test": items}, in the schema of the data set's other tasks."""
    blocks = {"train": [], "valid": [], "test": documents(data, "macro.heldout")}
    for document in documents(data, "macro"):
        blocks[held_out(document)].append(document)
    trained_on = "\n".join(blocks["train"])
    splits, seen = {}, set()
    for split in ("test", "valid", "train"):
        splits[split] = []
        for document in blocks[split]:
            for masked, sentence, label in cloze(document):
                key = re.sub(r"\W+", " ", sentence).lower()
                if key in seen or (split != "train" and sentence in trained_on):
                    continue
                seen.add(key)
                digest = hashlib.sha256(sentence.encode("utf-8")).hexdigest()[:12]
                splits[split].append({
                    "id": f"macrodir-{split[:2]}-{digest}", "task": "macro_direction", "role": "macro",
                    "instruction": INSTRUCTION, "input": f"Sentence: {masked}", "choices": list(CHOICES), "answer": label})
    return splits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, rows in items(arguments.data).items():
        counts = {label: sum(row["answer"] == label for row in rows) for label in CHOICES}
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (arguments.out / f"macro_direction.{split}.jsonl").write_text(text, encoding="utf-8")
        print(f"{split}: {len(rows)} items, {len(text.encode())} bytes, {counts}")


if __name__ == "__main__":
    main()
