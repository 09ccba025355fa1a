"""What the recipe reads: documents of the corpora, task items, and the chat format as token ids.

Nothing here trains. Only permissive files are ever listed in TRAIN_TASKS; fomc and fpb are measured, never trained on.
"""
import hashlib
import json
from pathlib import Path

ROLES = ("macro", "micro", "quant")
TRAIN_TASKS = {"macro": ("macro_direction",), "micro": ("tfns",), "quant": ("stock_movement", "tatqa_mc", "tatqa_qa")}
ROLE_OF_TASK = {task: role for role, tasks in TRAIN_TASKS.items() for task in tasks}
MEASURED_ONLY = ("fomc", "fpb")  # non-commercial labels: may be looked at, never learned from

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
START_HEADER, END_HEADER, EOT = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
PAD = "<|finetune_right_pad_id|>"
SPECIALS = (BOS, EOS, START_HEADER, END_HEADER, EOT, PAD)


def verified_bytes(data: Path, name: str) -> bytes:
    """The bytes of data/name, after comparing them with the line in data/SHA256SUMS."""
    raw = (data / name).read_bytes()
    for line in (data / "SHA256SUMS").read_text().splitlines():
        digest, listed = line.split(maxsplit=1)
        if listed.lstrip("*./") == name:
            if hashlib.sha256(raw).hexdigest() != digest:
                raise ValueError(f"{name}: its checksum differs from SHA256SUMS")
            return raw
    raise ValueError(f"{name}: not in SHA256SUMS")


def documents(data: Path, name: str) -> list[str]:
    """The documents of data/corpora/<name>.txt: blocks between blank lines."""
    text = verified_bytes(data, f"corpora/{name}.txt").decode("utf-8")
    return [block.strip("\n") for block in text.split("\n\n") if block.strip()]


def held_out(document: str) -> str:
    """"test", "valid" or "train" for a macro document, by its hash (about 8% and 2% are kept from training)."""
    bucket = hashlib.sha256(document.encode("utf-8")).digest()[0]
    return "test" if bucket < 20 else "valid" if bucket < 26 else "train"


def training_documents(data: Path, role: str) -> list[str]:
    """A role's corpus without the documents that macro_direction's valid and test items are made from."""
    docs = documents(data, role)
    return [doc for doc in docs if held_out(doc) == "train"] if role == "macro" else docs


def task_items(data: Path, task: str, split: str) -> list[dict]:
    """The items of a task; macro_direction is derived here, the others are read from data/tasks."""
    if task == "macro_direction":
        import macro_direction
        return macro_direction.items(data)[split]
    raw = verified_bytes(data, f"tasks/{task}.{split}.jsonl").decode("utf-8")
    return [json.loads(line) for line in raw.splitlines() if line]


class Chat:
    """Llama 3's chat format. Content is encoded apart from the structure: text can never become structure."""

    def __init__(self, tokenizer):
        """tokenizer: tokenizers.Tokenizer. Its special tokens are not looked for in content."""
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # "<|eot_id|>" inside a text stays text
        self.id = {token: tokenizer.token_to_id(token) for token in SPECIALS}
        self._header = {role: [self.id[START_HEADER], *self.encode(role), self.id[END_HEADER], *self.encode("\n\n")]
                        for role in ("user", "assistant")}

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prompt(self, instruction: str, text: str) -> list[int]:
        """<|begin_of_text|> user turn, and the header of the assistant's turn."""
        content = self.encode(f"{instruction}\n{text}".strip())
        return [self.id[BOS], *self._header["user"], *content, self.id[EOT], *self._header["assistant"]]

    def answer(self, label: str) -> list[int]:
        return [*self.encode(label), self.id[EOT]]

    def document(self, text: str) -> list[int]:
        return [self.id[BOS], *self.encode(text), self.id[EOS]]
