"""Makes a team: tokenizer and common base, three roles, gate, team.json.

    python training/make_team.py --data DATA --out examples/mini-team

Stages, after FinTeamExperts (arXiv 2410.21338):
  0  tokenizer, and a base pre-trained on all three corpora (skipped with --base: an existing Llama checkpoint)
  1  per role: continued pre-training of the base on the role's corpus
  2  per role: instruct-tuning on the role's tasks and a share of the other roles'
  3  the gate, then team.json
Each stage is kept in --work with its plan and is not repeated while neither its plan nor an earlier stage has changed.
"""
import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import bpe
import gate
import macro_direction
from text import BOS, EOS, EOT, PAD, ROLE_OF_TASK, ROLES, Chat, task_items, training_documents
from train import Plan, all_here, answer_batches, first_process, start_processes, text_batches, train, whole_state

# Passes over each task's training items, per role and round: the role's own tasks first, then a share of the others'.
# A round is one schedule of the learning rate; the tables need more reading than the tweets do.
PASSES = {
    "macro": [{"macro_direction": 3.0, "tfns": 0.2, "tatqa_mc": 0.1, "stock_movement": 0.05, "tatqa_qa": 0.1}],
    "micro": [{"tfns": 2.5, "macro_direction": 0.5, "tatqa_mc": 0.1, "stock_movement": 0.05, "tatqa_qa": 0.1}],
    "quant": [{"tatqa_mc": 1.0, "stock_movement": 0.1, "tatqa_qa": 0.5, "tfns": 0.15, "macro_direction": 0.5},
              {"tatqa_mc": 1.0, "stock_movement": 0.05, "tatqa_qa": 0.1, "tfns": 0.1, "macro_direction": 0.2}],
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder (corpora/, tasks/, SHA256SUMS)")
    parser.add_argument("--out", type=Path, required=True, help="the team's folder")
    parser.add_argument("--work", type=Path, default=Path("out/training"), help="intermediate checkpoints")
    parser.add_argument("--base", type=Path, help="an existing Llama checkpoint folder with its tokenizer.json")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the master weights")
    parser.add_argument("--no-autocast", action="store_true", help="float32 products")
    parser.add_argument("--optimizer", default="muon", choices=["muon", "adamw"])
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--feed-forward", type=int, default=512)
    parser.add_argument("--length", type=int, default=512, help="tokens per row of plain text")
    parser.add_argument("--longest", type=int, default=640, help="tokens; longer prompts are left out of tuning")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--base-tokens", type=int, default=3_000_000)
    parser.add_argument("--role-tokens", type=int, default=250_000)
    parser.add_argument("--base-lr", type=float, default=6e-3)
    parser.add_argument("--role-lr", type=float, default=1.5e-3)
    parser.add_argument("--tune-lr", type=float, default=1.5e-3)
    parser.add_argument("--tune-batch-tokens", type=int, default=4096)
    parser.add_argument("--passes", type=float, default=1.0, help="scales the passes over the tasks")
    parser.add_argument("--seed", type=int, default=2410)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--snapshot-every", type=int, default=0, help="steps of tuning between snapshots in --work; 0: none")
    parser.add_argument("--only", nargs="*", default=["base", *ROLES, "gate"],
                        choices=["base", *ROLES, "gate"], help="run these stages, e.g. the three roles side by side")
    return parser.parse_args()


def plain_text(data: Path, role: str) -> list[str]:
    """The role's corpus; micro also reads the tweets of tfns.train, without labels or instruction."""
    texts = training_documents(data, role)
    if role == "micro":
        texts = texts + [item["input"].removeprefix("Tweet: ") for item in task_items(data, "tfns", "train")]
    return texts


def text_rows(chat: Chat, texts: list[str], length: int, seed: int) -> np.ndarray:
    """Shuffled documents end to end, cut into rows of length + 1 that overlap by one token."""
    order = np.random.RandomState(seed).permutation(len(texts))
    stream = np.concatenate([np.asarray(chat.document(texts[i]), dtype=np.int32) for i in order])
    count = (len(stream) - 1) // length
    return np.stack([stream[i * length:i * length + length + 1] for i in range(count)])


def shuffled_options(item: dict, random: np.random.RandomState) -> dict:
    """The same multiple-choice question with its options in another order (the answer is named by its text)."""
    line = " / ".join(item["choices"])
    if item["task"] != "tatqa_mc" or not item["input"].endswith(line):
        return item
    choices = [item["choices"][i] for i in random.permutation(len(item["choices"]))]
    return {**item, "choices": choices, "input": item["input"][:-len(line)] + " / ".join(choices)}


def tuning_examples(data: Path, chat: Chat, role: str, turn: int, arguments) -> list:
    """(prompt ids, answer ids) for the passes of PASSES[role][turn]; a part of a pass is drawn without replacement."""
    random = np.random.RandomState(arguments.seed + 1 + turn)
    examples = []
    for task, passes in PASSES[role][turn].items():
        items = task_items(data, task, "train")
        wanted = round(passes * arguments.passes * len(items))
        drawn = [i for _ in range(wanted // len(items) + 1) for i in random.permutation(len(items))][:wanted]
        for i in drawn:
            item = shuffled_options(items[i], random)
            prompt, answer = chat.prompt(item["instruction"], item["input"]), chat.answer(item["answer"])
            if len(prompt) + len(answer) <= arguments.longest:
                examples.append((prompt, answer))
    return examples


def fresh_base(arguments, chat: Chat):
    torch.manual_seed(arguments.seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=chat.tokenizer.get_vocab_size(), hidden_size=arguments.width, intermediate_size=arguments.feed_forward,
        num_hidden_layers=arguments.layers, num_attention_heads=arguments.heads, num_key_value_heads=arguments.kv_heads,
        head_dim=arguments.width // arguments.heads, max_position_embeddings=1024, tie_word_embeddings=True,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, initializer_range=0.02,
        bos_token_id=chat.id[BOS], eos_token_id=[chat.id[EOS], chat.id[EOT]], pad_token_id=chat.id[PAD]))


class Stage:
    """A folder that holds a checkpoint and the plan that made it."""

    def __init__(self, folder: Path, plan: dict):
        self.folder, self.plan = folder, json.loads(json.dumps(plan, default=str))

    def done(self) -> bool:
        record = self.folder / "stage.json"
        return record.exists() and json.loads(record.read_text())["plan"] == self.plan

    def save(self, model, measured: dict):
        state = whole_state(model)
        if first_process():
            model.save_pretrained(self.folder, state_dict=state)
            record = {"plan": self.plan, "measured": measured}
            (self.folder / "stage.json").write_text(json.dumps(record, indent=1) + "\n")
        all_here()


def open_model(folder: Path, arguments, device: str):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, arguments.dtype)).to(device)


def make_tokenizer(arguments) -> Tokenizer:
    path = arguments.base / "tokenizer.json" if arguments.base else arguments.work / "tokenizer.json"
    if first_process() and not path.exists():
        texts = [text for role in ROLES for text in plain_text(arguments.data, role)]
        texts += [f"{item['instruction']}\n{item['input']}" for task in ROLE_OF_TASK
                  for item in task_items(arguments.data, task, "train")]
        bpe.train(texts, arguments.vocab).save(str(path))
    all_here()
    if first_process():
        shutil.copyfile(path, arguments.out / "tokenizer.json")
    return Tokenizer.from_file(str(path))


def plan_of(arguments, **changed) -> Plan:
    return Plan(batch_tokens=arguments.batch_tokens, accumulate=arguments.accumulate, optimizer=arguments.optimizer,
                autocast=not arguments.no_autocast, seed=arguments.seed, **changed)


def make_base(arguments, chat: Chat, device: str) -> Stage:
    plan = plan_of(arguments, tokens=arguments.base_tokens, lr=arguments.base_lr)
    shape = [arguments.vocab, arguments.width, arguments.layers, arguments.heads, arguments.kv_heads, arguments.feed_forward]
    stage = Stage(arguments.work / "base", {**dataclasses.asdict(plan), "shape": shape, "length": arguments.length})
    if "base" in arguments.only and not stage.done():
        model = fresh_base(arguments, chat).to(device)
        texts = [text for role in ROLES for text in plain_text(arguments.data, role)]
        rows = text_rows(chat, texts, arguments.length, arguments.seed)
        stage.save(model, train(model, list(text_batches(rows, plan)), plan, "base"))
    return stage


def make_role(arguments, chat: Chat, role: str, base: Path, base_plan: dict, device: str):
    reading = plan_of(arguments, tokens=arguments.role_tokens, lr=arguments.role_lr)
    read = Stage(arguments.work / f"{role}.read", {"from": base_plan, **dataclasses.asdict(reading)})
    if not read.done():
        model = open_model(base, arguments, device)
        rows = text_rows(chat, plain_text(arguments.data, role), arguments.length, arguments.seed + 1)
        read.save(model, train(model, list(text_batches(rows, reading)), reading, f"{role}, reading"))
    tuning = dataclasses.replace(plan_of(arguments, tokens=0, lr=arguments.tune_lr), warmup=0.05,
                                 batch_tokens=arguments.tune_batch_tokens)
    before = read
    for turn, table in enumerate(PASSES[role]):
        passes = {task: passes * arguments.passes for task, passes in table.items()}
        tuned = Stage(tuned_folder(arguments, role, turn), {"from": before.plan, **dataclasses.asdict(tuning), "passes": passes})
        if not tuned.done():
            model = open_model(before.folder, arguments, device)
            examples = tuning_examples(arguments.data, chat, role, turn, arguments)
            pad = chat.id[PAD] if chat.id[PAD] is not None else chat.id[EOT]
            kept = arguments.work / f"{role}.snapshot"
            tuned.save(model, train(model, list(answer_batches(examples, tuning, pad)), tuning, f"{role}, tuning {turn + 1}",
                                    arguments.snapshot_every, lambda: model.save_pretrained(kept)))
        before = tuned


def tuned_folder(arguments, role: str, turn: int) -> Path:
    return arguments.work / (role if turn == 0 else f"{role}.{turn + 1}")


def publish_role(arguments, role: str):
    """bfloat16 weights, as save_pretrained writes them, into the team's folder."""
    last = tuned_folder(arguments, role, len(PASSES[role]) - 1)
    AutoModelForCausalLM.from_pretrained(last, dtype=torch.bfloat16).save_pretrained(arguments.out / role)
    (arguments.out / role / "model.safetensors").chmod(0o644)


def write_manifest(arguments):
    tfns = task_items(arguments.data, "tfns", "valid")[0]["instruction"]
    movement = task_items(arguments.data, "stock_movement", "valid")[0]["instruction"]
    manifest = {
        "finteam": 1,
        "roles": [{"name": role, "path": role} for role in ROLES],
        "base": None,
        "tokenizer": "tokenizer.json",
        "gate": {"file": "gate.safetensors", "reads": "prompt_mean_hidden", "of": "micro", "per": "prompt",
                 "top_k": 2, "temperature": 1.0},
        "mix_in": "probabilities",
        "chat": "llama-3",
        "tasks": {
            "sentiment": {"instruction": tfns, "input": "Tweet: {text}", "labels": ["bearish", "neutral", "bullish"]},
            "direction": {"instruction": macro_direction.INSTRUCTION, "input": "Sentence: {text}",
                          "labels": list(macro_direction.CHOICES)},
            "movement": {"instruction": movement, "input": "{text}", "labels": ["rise", "fall"]}}}
    (arguments.out / "team.json").write_text(json.dumps(manifest, indent=2) + "\n")


def main():
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = start_processes()
    for folder in (arguments.work, arguments.out):
        folder.mkdir(parents=True, exist_ok=True)
    chat = Chat(make_tokenizer(arguments))
    if arguments.base:
        base, base_plan = arguments.base, {"base": arguments.base.name}
    else:
        stage = make_base(arguments, chat, device)
        base, base_plan = stage.folder, stage.plan
    for role in ROLES:
        if role in arguments.only:
            make_role(arguments, chat, role, base, base_plan, device)
    if "gate" in arguments.only and first_process():
        for role in ROLES:
            publish_role(arguments, role)
        gate.make(arguments.data, arguments.out, chat, arguments.seed, device)
        write_manifest(arguments)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
