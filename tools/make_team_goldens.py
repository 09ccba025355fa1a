"""Writes tests/goldens/mini_team.json: what PyTorch computes with the bundled team, for the C++ tests to meet.

    python tools/make_team_goldens.py --data DATA --team examples/mini-team --out tests/goldens/mini_team.json

Per prompt: its text and ids, each role's label scores (log-probabilities), the gate's logits and weights, all float32
from the bfloat16 weights; for two prompts the greedy continuation of each role, with the gap between the best and the
second logit at each step (where it is tiny, another order of summation may choose otherwise). Needs training/requirements.txt.
"""
import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "training"))
from evaluate import Team, label_scores, top_k_weights  # noqa: E402
from text import task_items  # noqa: E402

TASKS = (("tfns", "test"), ("stock_movement", "test"), ("tatqa_mc", "test"), ("macro_direction", "test"))
GREEDY = 32


@torch.no_grad()
def greedy(model, prompt: list, count: int) -> tuple:
    """The next `count` ids by argmax over the whole vocabulary, not stopping at <|eot_id|>; and the gaps."""
    ids, gaps = list(prompt), []
    for _ in range(count):
        best = model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[0, -1].topk(2)
        ids.append(int(best.indices[0]))
        gaps.append(round(float(best.values[0] - best.values[1]), 5))
    return ids[len(prompt):], gaps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--team", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    team = Team(arguments.team)
    gate = team.manifest["gate"]
    rows = []
    for task, split in TASKS:
        items = task_items(arguments.data, task, split)
        for item in (items[7], items[len(items) // 2]):
            prompt = team.chat.prompt(item["instruction"], item["input"])
            labels = [team.chat.answer(choice) for choice in item["choices"]]
            logits = team.gate_logits([prompt])
            rows.append({
                "id": item["id"], "task": task, "instruction": item["instruction"], "input": item["input"],
                "labels": item["choices"], "answer": item["answer"], "prompt_ids": prompt, "label_ids": labels,
                "label_log_scores": {role: label_scores(model, [prompt], [labels], team.pad)[0].tolist()
                                     for role, model in team.roles.items()},
                "gate_logits": logits[0].tolist(),
                "gate_weights": top_k_weights(logits, gate["top_k"], gate["temperature"])[0].tolist()})
    for row in (rows[0], rows[-1]):
        row["greedy"] = {}
        for role, model in team.roles.items():
            ids, gaps = greedy(model, row["prompt_ids"], GREEDY)
            row["greedy"][role] = {"ids": ids, "gaps": gaps}
    golden = {"made_by": "tools/make_team_goldens.py", "computed_in": "float32 from bfloat16 weights, PyTorch",
              "roles": list(team.roles), "prompts": rows}
    text = json.dumps(golden, ensure_ascii=False, indent=None, separators=(",", ":"))
    text = text.replace('{"id"', '\n{"id"') + "\n"  # one prompt per line
    arguments.out.write_text(text, encoding="utf-8")
    print(f"{arguments.out}: {len(rows)} prompts, {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
