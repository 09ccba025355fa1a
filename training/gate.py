"""The gate: which role a prompt is for, as a linear softmax over the micro role's mean last hidden state.

logits = W x + b, x the mean over all prompt positions of the hidden state after the final norm [d], float32.
Fitted by multinomial logistic regression with L2 on prompts of the training splits, the same prompts without their
instruction, and passages of each role's corpus, so that it reads content and not the instruction alone.
"""
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from evaluate import prompt_means
from text import EOT, PAD, ROLES, TRAIN_TASKS, documents, task_items, training_documents

READS = "micro"
PER_KIND = 400     # prompts per role and kind: with instruction, without, passages
L2 = 1e-3


def passages(texts: list, count: int, random: np.random.RandomState) -> list:
    """Runs of one to four sentences of the documents, cut at a length between 60 and 600 characters."""
    out = []
    while len(out) < count:
        text = texts[random.randint(len(texts))]
        start = random.randint(max(1, len(text) - 200))
        start = text.find(" ", start) + 1  # at a word
        piece = text[start:start + random.randint(60, 600)].rsplit(" ", 1)[0].strip()
        if len(piece) >= 50:
            out.append(piece)
    return out


def prompts(data: Path, chat, splits: str, per_kind: int, seed: int) -> dict:
    """{kind: (prompts, role numbers)} for "instruction", "bare" and "passage"; splits is train or valid."""
    random = np.random.RandomState(seed)
    out = {"instruction": ([], []), "bare": ([], []), "passage": ([], [])}
    for number, role in enumerate(ROLES):
        tasks = TRAIN_TASKS[role]
        for task in tasks:
            items = task_items(data, task, splits)
            for i in random.permutation(len(items))[:per_kind // len(tasks)]:
                for kind, instruction in (("instruction", items[i]["instruction"]), ("bare", "")):
                    text = items[i]["input"]
                    if not instruction and random.rand() < 0.5:  # half of the bare ones without "Tweet:", "Sentence:"
                        text = text.split(": ", 1)[1] if text.startswith(("Tweet: ", "Sentence: ")) else text
                    ids = chat.prompt(instruction, text)
                    if len(ids) <= 1000:
                        out[kind][0].append(ids)
                        out[kind][1].append(number)
        texts = training_documents(data, role) if splits == "train" else documents(data, f"{role}.heldout")
        for piece in passages(texts, per_kind, random):
            out["passage"][0].append(chat.prompt("", piece))
            out["passage"][1].append(number)
    return out


def fit(features: torch.Tensor, roles: torch.Tensor) -> tuple:
    """argmin of mean cross-entropy + L2/2 |W|² on standardised features; returned for the features as they are."""
    mean, scale = features.mean(dim=0), features.std(dim=0) + 1e-6
    x = ((features - mean) / scale).double()
    weight = torch.zeros(len(ROLES), x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(ROLES), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, roles) + L2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    plain = weight.detach() / scale
    return plain.float(), (bias.detach() - plain @ mean.double()).float()


def make(data: Path, out: Path, chat, seed: int, device: str) -> dict:
    """Fits on the training splits, writes out/gate.safetensors, returns the held-out routing accuracy per kind."""
    pad = chat.id[PAD] if chat.id[PAD] is not None else chat.id[EOT]
    model = AutoModelForCausalLM.from_pretrained(out / READS, dtype=torch.float32).to(device).eval()
    features, roles = [], []
    for ids, numbers in prompts(data, chat, "train", PER_KIND, seed).values():
        features.append(prompt_means(model, ids, pad))
        roles += numbers
    weight, bias = fit(torch.cat(features), torch.tensor(roles))
    save_file({"weight": weight.contiguous(), "bias": bias.contiguous()}, out / "gate.safetensors", metadata={"format": "pt"})
    (out / "gate.safetensors").chmod(0o644)
    accuracy = {}
    for kind, (ids, numbers) in prompts(data, chat, "valid", 200, seed).items():
        said = (prompt_means(model, ids, pad) @ weight.T + bias).argmax(dim=-1)
        accuracy[kind] = round(float((said == torch.tensor(numbers)).float().mean()), 4)
    print(f"gate: held-out routing accuracy {accuracy}", flush=True)
    return accuracy
