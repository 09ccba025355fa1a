"""The two training loops that every stage uses: rows of plain text, and answers to prompts.

One loss, one loop. On one device nothing is wrapped; under torchrun the model is sharded by PyTorch's own FSDP2.
"""
import contextlib
import math
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

IGNORE = -100


@dataclass
class Plan:
    """How one stage trains. tokens counts every token that is read, prompt and padding included."""
    tokens: int
    lr: float
    warmup: float = 0.03       # share of the steps
    final_lr: float = 0.05     # share of lr at the last step
    batch_tokens: int = 4096   # per micro batch and process
    accumulate: int = 1
    weight_decay: float = 0.05
    optimizer: str = "muon"    # for the blocks' matrices; embeddings and norms always take AdamW
    autocast: bool = True      # bfloat16 products; the master weights stay as they are
    seed: int = 0


class Loss(nn.Module):
    """Σ_i -log p(target_i), over positions whose target is not IGNORE; the head runs on those rows only."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, targets):
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        keep = targets != IGNORE
        logits = self.model.lm_head(hidden[keep])
        return nn.functional.cross_entropy(logits.float(), targets[keep], reduction="sum"), keep.sum()


def text_batches(rows: np.ndarray, plan: Plan):
    """rows [n, s + 1] of token ids, shuffled by seed; yields (ids, targets) [b, s] until the budget is spent."""
    random = np.random.RandomState(plan.seed)
    length = rows.shape[1] - 1
    per_batch = max(1, plan.batch_tokens // length)
    spent, order = 0, []
    while spent < plan.tokens:
        while len(order) < per_batch:
            order += random.permutation(len(rows)).tolist()
        chosen, order = rows[order[:per_batch]], order[per_batch:]
        spent += per_batch * length
        yield torch.from_numpy(chosen[:, :-1].astype(np.int64)), torch.from_numpy(chosen[:, 1:].astype(np.int64))


def answer_batches(examples: list, plan: Plan, pad: int):
    """examples: (prompt ids, answer ids); batches of like length, in random order; one pass. Loss on answers only."""
    random = np.random.RandomState(plan.seed)
    jitter = random.uniform(0.9, 1.1, len(examples))
    order = sorted(range(len(examples)), key=lambda i: jitter[i] * (len(examples[i][0]) + len(examples[i][1])))
    batches, batch, longest = [], [], 0
    for i in order:
        length = len(examples[i][0]) + len(examples[i][1]) - 1
        if batch and max(longest, length) * (len(batch) + 1) > plan.batch_tokens:
            batches.append(batch)
            batch, longest = [], 0
        batch.append(examples[i])
        longest = max(longest, length)
    batches.append(batch)
    for b in random.permutation(len(batches)):
        width = max(len(prompt) + len(answer) for prompt, answer in batches[b]) - 1
        ids = torch.full((len(batches[b]), width), pad, dtype=torch.int64)  # on the right: causal attention ignores it
        targets = torch.full_like(ids, IGNORE)
        for row, (prompt, answer) in enumerate(batches[b]):
            both = torch.tensor([*prompt, *answer])
            ids[row, :len(both) - 1] = both[:-1]
            targets[row, len(prompt) - 1:len(both) - 1] = both[len(prompt):]
        yield ids, targets


def optimizers(model, plan: Plan) -> list:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n and plan.optimizer == "muon"]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    made = [torch.optim.AdamW([{"params": [p for p in others if p.ndim > 1], "weight_decay": plan.weight_decay},
                               {"params": [p for p in others if p.ndim == 1], "weight_decay": 0.0}],
                              lr=plan.lr, betas=(0.9, 0.95))]
    if matrices:
        made.append(torch.optim.Muon(matrices, lr=plan.lr, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return made


def share(step: int, steps: int, plan: Plan) -> float:
    """The learning rate's factor: linear warm-up, then linear decay to final_lr."""
    warm = max(1, math.ceil(steps * plan.warmup))
    if step < warm:
        return (step + 1) / warm
    return 1.0 - (1.0 - plan.final_lr) * (step - warm) / max(1, steps - warm)


def train(model, batches: list, plan: Plan, name: str, every: int = 0, snapshot=None) -> dict:
    """Trains model in place over batches (each process takes its share); returns what was measured.

    snapshot() is called after every `every` steps, on one process only; 0: never."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    loss_of = Loss(model)
    if world > 1:
        from torch.distributed.fsdp import fully_shard
        if plan.optimizer == "muon":
            raise ValueError("several processes: choose --optimizer adamw (a sharded matrix cannot be orthogonalised)")
        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(loss_of)
    device = next(model.parameters()).device
    cast = torch.autocast(device.type, torch.bfloat16) if plan.autocast else contextlib.nullcontext()
    group = plan.accumulate * world
    steps = len(batches) // group
    made = optimizers(model, plan)
    base_rates = [[g["lr"] for g in o.param_groups] for o in made]
    model.train()
    started, tokens, running = time.time(), 0, None
    for step in range(steps):
        for optimizer, rates in zip(made, base_rates):
            for param_group, rate in zip(optimizer.param_groups, rates):
                param_group["lr"] = rate * share(step, steps, plan)
        mine = batches[step * group + rank * plan.accumulate:step * group + (rank + 1) * plan.accumulate]
        answers = sum(int((targets != IGNORE).sum()) for _, targets in mine)
        total = 0.0
        for ids, targets in mine:
            with cast:
                loss, _ = loss_of(ids.to(device), targets.to(device))
            (loss / answers).backward()
            total += float(loss.detach())
            tokens += ids.numel() * world
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if every and world == 1 and (step + 1) % every == 0:
            snapshot()
        running = total / answers if running is None else 0.95 * running + 0.05 * total / answers
        if rank == 0 and (step % 25 == 0 or step == steps - 1):
            print(f"{name}: step {step + 1}/{steps}, loss {running:.4f}, {tokens} tokens, "
                  f"{tokens / (time.time() - started):.0f} tokens/s", flush=True)
    return {"stage": name, "steps": steps, "tokens": tokens, "seconds": round(time.time() - started, 1),
            "loss": round(running, 4)}


def start_processes() -> str:
    """Joins torchrun's process group if there is one; returns the device."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if device != "cpu" else "gloo")
    if device != "cpu":
        torch.cuda.set_device(device)
    return device


def first_process() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def all_here():
    if dist.is_initialized():
        dist.barrier()


def whole_state(model) -> dict:
    """The full state on rank 0's CPU, gathered if it is sharded."""
    if not dist.is_initialized():
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
