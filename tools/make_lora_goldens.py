"""Writes tests/goldens/lora/: adapters of PEFT on the tiny checkpoint tests/goldens/llama31, and what PEFT computes with them.

    pip install -r tools/requirements.txt
    python tools/make_lora_goldens.py          (seconds on one core; the tests only read what it wrote)

Every adapter turns on what the others do not: rank_pattern and alpha_pattern, rsLoRA, a subset of modules, lm_head,
modules_to_save of matrices, of norms. golden.safetensors holds ids [T] and, for each adapter, logits [T, v]; `base.logits` without one, and
`inside.logits` of the base with 0.25, 0.75 of the deltas of `patterns` and `rslora` in every weight. golden.json says how
far each mistake would miss; the script fails unless all miss by more than 100 of the tests' tolerances.
"""
import copy
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import save_file

from make_goldens import MUST_MISS, logits_of, open_model

ROOT = Path(__file__).resolve().parent.parent / "tests" / "goldens"
BASE, OUT, LENGTH = ROOT / "llama31", ROOT / "lora", 40

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "patterns": LoraConfig(r=4, lora_alpha=10, target_modules=[*LINEAR, "lm_head"],
                           rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.(up|down)_proj": 7},
                           alpha_pattern={"v_proj": 3.5, r"0\.mlp\.gate_proj": 1}),
    "rslora": LoraConfig(r=9, lora_alpha=2, use_rslora=True, target_modules=["q_proj", "v_proj"]),
    "saved": LoraConfig(r=3, lora_alpha=6, target_modules=["o_proj", "gate_proj"],
                        modules_to_save=["embed_tokens", "lm_head"]),
    "norms": LoraConfig(r=2, lora_alpha=4, target_modules=["v_proj", "down_proj"],
                        modules_to_save=["input_layernorm", "post_attention_layernorm", "norm"]),
}


def draw(model, random):
    """A of variance 1/k, B so that a delta is about half of its matrix; saved modules near the base's."""
    for name, weight in model.named_parameters():
        noise = torch.from_numpy(random.standard_normal(tuple(weight.shape))).float()
        if "lora_A" in name:
            weight.data = noise / math.sqrt(weight.shape[1])
        elif "lora_B" in name:
            weight.data = noise * 0.4 / math.sqrt(weight.shape[1])
        elif "modules_to_save" in name:
            weight.data = weight.data + 0.5 * weight.data.std() * noise


def adapted(name):
    return PeftModel.from_pretrained(open_model(BASE), OUT / name).eval()


def scaled(model, change):
    """The adapter with other scales: change(old scale, module)."""
    for module in model.modules():
        if hasattr(module, "scaling") and isinstance(module.scaling, dict):
            module.scaling = {k: change(v, module) for k, v in module.scaling.items()}
    return model


def mistakes(name):
    config = ADAPTERS[name]
    yield "adapter_left_out", open_model(BASE)
    if name == "patterns":
        yield "alpha_pattern_left_out", scaled(adapted(name), lambda s, m: config.lora_alpha / m.r["default"])
        yield "rank_pattern_left_out_of_scale", scaled(adapted(name), lambda s, m: s * m.r["default"] / config.r)
    if name == "rslora":
        yield "scale_by_rank", scaled(adapted(name), lambda s, m: config.lora_alpha / config.r)
    if config.modules_to_save:
        base = open_model(BASE)
        for key in config.modules_to_save:
            wrong = adapted(name)
            for full, module in wrong.named_modules():
                if full.split(".")[-1] == key and hasattr(module, "modules_to_save"):
                    original = base.get_submodule(full.removeprefix("base_model.model."))
                    module.modules_to_save["default"] = copy.deepcopy(original)
            yield f"own_{key}_left_out", wrong


def deltas(name):
    """module → scale · B·A"""
    return {full.removeprefix("base_model.model."): module.get_delta_weight("default")
            for full, module in adapted(name).named_modules() if hasattr(module, "get_delta_weight")}


@torch.no_grad()
def main():
    shutil.rmtree(OUT, ignore_errors=True)
    ids = [int(i) for i in np.random.default_rng(7).integers(0, 199, LENGTH)]
    golden = {"ids": np.array(ids, np.float32), "base.logits": logits_of(open_model(BASE), ids).numpy()}
    facts = {}
    for seed, (name, config) in enumerate(ADAPTERS.items()):
        model = get_peft_model(open_model(BASE), config)
        draw(model, np.random.default_rng(100 + seed))
        model.save_pretrained(OUT / name)
        (OUT / name / "README.md").unlink(missing_ok=True)
        file = OUT / name / "adapter_config.json"
        words = json.loads(file.read_text())
        words["base_model_name_or_path"] = "llama31"
        file.write_text(json.dumps(dict(sorted(words.items())), indent=2) + "\n")
        logits = logits_of(adapted(name), ids)
        golden[f"{name}.logits"] = logits.numpy()
        facts[name] = {m: float((logits_of(w, ids) - logits).abs().max()) for m, w in mistakes(name)}
    inside = open_model(BASE)
    for share, name in ((0.25, "patterns"), (0.75, "rslora")):
        for module, delta in deltas(name).items():
            inside.get_submodule(module).weight += share * delta
    golden["inside.logits"] = logits_of(inside, ids).numpy()
    for name, measured in facts.items():
        for mistake, miss in measured.items():
            if miss < MUST_MISS:
                raise SystemExit(f"{name}: {mistake} moves a logit by {miss} only")
    save_file(golden, OUT / "golden.safetensors")
    (OUT / "golden.json").write_text(json.dumps(facts, indent=2) + "\n")
    for file in OUT.rglob("*.safetensors"):
        file.chmod(0o644)


main()
