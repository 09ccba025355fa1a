"""Label-likelihood evaluation of a team: accuracy and weighted F1 per role, and of the mix that the gate makes.

    python training/evaluate.py --data DATA --team examples/mini-team

A label's score in a role is log p(its tokens, then <|eot_id|>) after the prompt; softmax over the labels; the gate's
top-k weights mix the roles' distributions. Computed in float32 from the bfloat16 weights. It is what the C++ library
computes, written a second time for cross-checking. fpb and fomc are measured only; no stage trains on them.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from text import EOT, PAD, ROLES, Chat, documents, task_items

SPLITS = {"tfns": "test", "stock_movement": "test", "tatqa_mc": "test", "macro_direction": "test",
          "fpb": "valid", "fomc": "valid"}


def padded(sequences: list, pad: int) -> torch.Tensor:
    out = torch.full((len(sequences), max(map(len, sequences))), pad, dtype=torch.int64)
    for row, ids in enumerate(sequences):
        out[row, :len(ids)] = torch.tensor(ids)
    return out


def batches_by_length(lengths: list, tokens: int):
    """Indices in groups of like length, each of at most `tokens` padded tokens."""
    batch, longest = [], 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and max(longest, lengths[i]) * (len(batch) + 1) > tokens:
            yield batch
            batch, longest = [], 0
        batch.append(i)
        longest = max(longest, lengths[i])
    if batch:
        yield batch


@torch.no_grad()
def prompt_means(model, prompts: list, pad: int, tokens: int = 16384) -> torch.Tensor:
    """[prompts, d] float32: the mean over all prompt positions of the last hidden state, after the final norm."""
    out = torch.empty(len(prompts), model.config.hidden_size)
    for batch in batches_by_length([len(p) for p in prompts], tokens):
        chosen = [prompts[i] for i in batch]
        hidden = model.model(input_ids=padded(chosen, pad).to(model.device), use_cache=False).last_hidden_state
        for row, i in enumerate(batch):
            out[i] = hidden[row, :len(prompts[i])].float().mean(dim=0).cpu()
    return out


@torch.no_grad()
def label_scores(model, prompts: list, answers: list, pad: int, tokens: int = 8192) -> list:
    """Per prompt, the float32 log-probability of each of its answers (token ids that end in <|eot_id|>).

    A row holds the prompt once and all its answers after it; an answer sees the prompt and itself, at the positions
    that it would have alone.
    """
    rows = [[*prompt, *(i for answer in options for i in answer[:-1])] for prompt, options in zip(prompts, answers)]
    scores = [None] * len(prompts)
    for batch in batches_by_length([len(row) for row in rows], tokens):
        ids = padded([rows[i] for i in batch], pad)
        width = ids.shape[1]
        positions = torch.arange(width).repeat(len(batch), 1)
        sees = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(batch), 1, 1)
        for row, i in enumerate(batch):
            start = end = len(prompts[i])
            for answer in answers[i]:
                begin, end = end, end + len(answer) - 1
                positions[row, begin:end] = torch.arange(start, start + len(answer) - 1)
                sees[row, begin:end, start:begin] = False
        mask = torch.zeros(len(batch), 1, width, width).masked_fill(~sees[:, None], torch.finfo(torch.float32).min)
        hidden = model.model(input_ids=ids.to(model.device), position_ids=positions.to(model.device),
                             attention_mask=mask.to(model.device), use_cache=False).last_hidden_state
        for row, i in enumerate(batch):
            end, found = len(prompts[i]), []
            for answer in answers[i]:
                begin, end = end, end + len(answer) - 1
                states = torch.cat([hidden[row, len(prompts[i]) - 1, None], hidden[row, begin:end]])
                log_p = model.lm_head(states).float().log_softmax(dim=-1)
                found.append(log_p.gather(1, torch.tensor(answer, device=log_p.device)[:, None]).sum().cpu())
            scores[i] = torch.stack(found)
    return scores


def top_k_weights(logits: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """softmax(logits / temperature), its k largest kept and renormalised; [n, roles]."""
    weights = (logits / temperature).softmax(dim=-1)
    kept, chosen = weights.topk(k, dim=-1)
    return torch.zeros_like(weights).scatter(1, chosen, kept / kept.sum(dim=-1, keepdim=True))


def weighted_f1(answers: list, said: list) -> float:
    total = 0.0
    for label in set(answers):
        hit = sum(a == label == s for a, s in zip(answers, said))
        f1 = 2 * hit / (sum(a == label for a in answers) + sum(s == label for s in said))
        total += f1 * sum(a == label for a in answers) / len(answers)
    return total


@torch.no_grad()
def bits_per_byte(model, chat: Chat, texts: list, length: int = 512, limit: int = 64) -> float:
    """Cost of held-out text: the first `limit` rows of `length` tokens, each read without what came before it."""
    stream = [i for text in texts for i in chat.document(text)]
    rows = [stream[i * length:(i + 1) * length] for i in range(min(limit, len(stream) // length))]
    nats, size = 0.0, 0
    for start in range(0, len(rows), 16):
        ids = torch.tensor(rows[start:start + 16])
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten().to(model.device), reduction="sum"))
        size += sum(len(chat.tokenizer.decode(row[1:], skip_special_tokens=True).encode("utf-8")) for row in ids.tolist())
    return nats / size / float(np.log(2))


class Team:
    def __init__(self, folder: Path, device: str = "cpu"):
        self.manifest = json.loads((folder / "team.json").read_text())
        self.chat = Chat(Tokenizer.from_file(str(folder / self.manifest["tokenizer"])))
        self.pad = self.chat.id[PAD] if self.chat.id[PAD] is not None else self.chat.id[EOT]
        self.roles = {role["name"]: AutoModelForCausalLM.from_pretrained(folder / role["path"], dtype=torch.float32)
                      .to(device).eval() for role in self.manifest["roles"]}
        self.gate = load_file(folder / self.manifest["gate"]["file"])

    def gate_logits(self, prompts: list) -> torch.Tensor:
        reader = self.roles[self.manifest["gate"]["of"]]
        return prompt_means(reader, prompts, self.pad) @ self.gate["weight"].T + self.gate["bias"]

    def gate_weights(self, prompts: list) -> torch.Tensor:
        gate = self.manifest["gate"]
        return top_k_weights(self.gate_logits(prompts), gate["top_k"], gate["temperature"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--team", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=list(SPLITS))
    parser.add_argument("--split", help="instead of the usual one")
    parser.add_argument("--limit", type=int, default=0, help="at most so many items per task, evenly spaced; 0: all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--text", action="store_true", help="also each role's bits per byte on the held-out corpora")
    arguments = parser.parse_args()
    team = Team(arguments.team)
    report = {}
    for task in arguments.tasks:
        split = arguments.split or SPLITS[task]
        items = task_items(arguments.data, task, split)
        items = items[::-(-len(items) // arguments.limit)] if arguments.limit else items
        prompts = [team.chat.prompt(item["instruction"], item["input"]) for item in items]
        labels = [[team.chat.answer(choice) for choice in item["choices"]] for item in items]
        answers = [item["answer"] for item in items]
        weights = team.gate_weights(prompts)
        shares = {role: [s.softmax(dim=0) for s in label_scores(model, prompts, labels, team.pad)]
                  for role, model in team.roles.items()}
        shares["team"] = [sum(weights[i, r] * shares[role][i] for r, role in enumerate(team.roles)) for i in range(len(items))]
        counts = [answers.count(a) for a in set(answers)]
        floor = (max(counts) / len(items) if len(counts) < 10  # free options: the expected hit rate of a random choice
                 else float(np.mean([1 / len(item["choices"]) for item in items])))
        report[f"{task}.{split}"] = row = {"items": len(items), "floor": floor,
                                           "gate": {r: float(weights[:, i].mean()) for i, r in enumerate(team.roles)}}
        for name, distributions in shares.items():
            said = [item["choices"][int(p.argmax())] for item, p in zip(items, distributions)]
            row[name] = {"accuracy": sum(a == s for a, s in zip(answers, said)) / len(items),
                         "weighted_f1": weighted_f1(answers, said) if len(counts) < 10 else None}
        print(f"{task}.{split} ({len(items)}, floor {floor:.3f}): " + "  ".join(
            f"{name} {row[name]['accuracy']:.3f}" + (f"/{row[name]['weighted_f1']:.3f}" if len(counts) < 10 else "")
            for name in shares) + "  gate " + " ".join(f"{w:.2f}" for w in row["gate"].values()), flush=True)
    for corpus in ROLES if arguments.text else ():
        texts = documents(arguments.data, f"{corpus}.heldout")
        report[f"{corpus}.heldout"] = row = {role: bits_per_byte(model, team.chat, texts) for role, model in team.roles.items()}
        print(f"{corpus}.heldout, bits per byte: " + "  ".join(f"{role} {bits:.3f}" for role, bits in row.items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
