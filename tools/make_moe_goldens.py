"""Writes tests/goldens/merged3/ and merged4/: tiny random Mixtral checkpoints, and what transformers computes from them.

    pip install -r tools/requirements.txt
    python tools/make_moe_goldens.py           (seconds on one core; the tests only read what it wrote)

merged3 has three experts, two for a token, a tensor for each (as transformers 4 and mergekit write them), and a
config.json without rope_theta (Mixtral's default is 1e6). merged4 has four, one for a token, in bf16, fused into three
dimensions. Tensors are those of make_goldens.py with 32 greedy ids, and `prompt_i.routing` [layers, T, experts]: the weight
of each expert, 0 where it was not chosen. Prompts are drawn until every greedy step and every choice of experts is clear;
the script fails unless every mistake in `mistakes()` moves a logit by more than 100 of the tests' tolerances.
"""
import copy
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import transformers
from transformers import MixtralConfig, MixtralForCausalLM

from make_goldens import (LENGTHS, MARGIN, TOLERANCE, as_f32, golden_tensors, greatest_difference, greedy, logits_of,
                          measure_mistakes, open_model, rope_frequencies, save_tensors, score_spread, set_frequencies,
                          versions, with_rope_in_double, write_json)
import make_goldens

OUT, STEPS = Path(__file__).resolve().parent.parent / "tests" / "goldens", 32


@dataclass
class Case:
    name: str
    seed: int
    experts: int
    top_k: int
    v: int
    f: int
    fused: bool
    dtype: torch.dtype
    config_style: str
    d: int = 32
    h: int = 4
    g: int = 2
    theta: float = 1e6


CASES = [
    Case("merged3", 61, experts=3, top_k=2, v=90, f=36, fused=False, dtype=torch.float32, config_style="4"),
    Case("merged4", 71, experts=4, top_k=1, v=101, f=28, fused=True, dtype=torch.bfloat16, config_style="5", theta=5e5),
]


def write_checkpoint(case, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model = MixtralForCausalLM(MixtralConfig(
        vocab_size=case.v, hidden_size=case.d, intermediate_size=case.f, num_hidden_layers=2, num_attention_heads=case.h,
        num_key_value_heads=case.g, num_local_experts=case.experts, num_experts_per_tok=case.top_k,
        max_position_embeddings=512, rope_parameters={"rope_theta": case.theta, "rope_type": "default"}))
    random = np.random.default_rng(case.seed)
    spread = {"embed_tokens": 0.3, "lm_head": 2 / math.sqrt(case.d), "q_proj": 1.3 / math.sqrt(case.d),
              "k_proj": 1.3 / math.sqrt(case.d), "v_proj": 1 / math.sqrt(case.d), "o_proj": 1 / math.sqrt(case.d),
              "gate": 1.2 / math.sqrt(case.d), "gate_up_proj": 1.3 / math.sqrt(case.d), "down_proj": 1.5 / math.sqrt(case.f)}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            words, shape = name.removesuffix(".weight").split("."), tuple(weight.shape)
            drawn = (random.uniform(0.5, 1.5, shape) if "norm" in words[-1]
                     else random.standard_normal(shape) * spread[words[-1]])
            weight.copy_(torch.from_numpy(drawn))
    model.to(case.dtype).save_pretrained(folder, save_original_format=not case.fused)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if case.config_style == "4":
        del config["rope_parameters"], config["head_dim"]
        config["torch_dtype"], config["transformers_version"] = config.pop("dtype"), "4.44.0"
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def open_eager(folder, dtype=torch.float32):
    model = open_model(folder, dtype)
    model.set_experts_implementation("eager")
    return model


def routers(model):
    return [layer.mlp.gate for layer in model.model.layers]


@torch.no_grad()
def routing_of(model, ids):
    """(weights [layers, T, experts], the smallest difference of router logits between what was and was not chosen)"""
    weights, apart = [], math.inf
    kept = []
    handles = [r.register_forward_hook(lambda m, i, out: kept.append(out)) for r in routers(model)]
    logits_of(model, ids)
    for handle in handles:
        handle.remove()
    for logits, scores, indices in kept:
        weights.append(torch.zeros_like(logits).scatter_(1, indices, scores))
        ordered = logits.sort(dim=-1, descending=True).values
        apart = min(apart, float((ordered[:, indices.shape[1] - 1] - ordered[:, indices.shape[1]]).min()))
    return torch.stack(weights), apart


def draw_prompts(model, case):
    found = []
    for number, length in enumerate(LENGTHS):
        for attempt in range(400):
            random = np.random.default_rng([case.seed, number, attempt])
            prompt = [int(i) for i in random.integers(0, case.v, length)]
            text, margin, last = greedy(lambda ids: logits_of(model, ids)[-1], prompt, STEPS)
            if margin > MARGIN and len(set(text)) >= 10 and routing_of(model, prompt + text)[1] > MARGIN:
                found.append((prompt, text, margin, last))
                break
        else:
            raise SystemExit(f"{case.name}: no usable prompt of {length} ids in 400 attempts")
    return found


def route(choose):
    """An edit: every router gives what choose(probabilities, top_k) does, (scores, indices)."""
    def edit(model):
        for router in routers(model):
            def forward(x, router=router):
                logits = torch.nn.functional.linear(x.reshape(-1, router.hidden_dim), router.weight)
                return (logits, *choose(logits.float().softmax(-1), router.top_k))
            router.forward = forward
    return edit


def shared(values):
    return values / values.sum(-1, keepdim=True)


def top(k):
    def choose(p, _):
        values, indices = p.topk(k, dim=-1)
        return shared(values), indices
    return route(choose)


def smallest(p, k):
    values, indices = p.topk(k, dim=-1, largest=False)
    return shared(values), indices


def even(p, k):
    values, indices = p.topk(k, dim=-1)
    return torch.full_like(values, 1 / k), indices


def swap_weights(p, k):
    values, indices = p.topk(k, dim=-1)
    return shared(values).flip(-1), indices


def for_experts(change):
    def edit(model):
        for layer in model.model.layers:
            change(layer)
    return edit


def without_norm(model):
    """Routers read x instead of norm(x)."""
    for layer in model.model.layers:
        def keep(module, args, layer=layer):
            layer.unnormed = args[0]
        layer.post_attention_layernorm.register_forward_pre_hook(keep)
        layer.mlp.gate.register_forward_pre_hook(lambda module, args, layer=layer: (layer.unnormed,))


def turn_experts(layer):
    for weight in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
        weight.data = weight.data.roll(1, 0)


def swap_gate_and_up(layer):
    weight = layer.mlp.experts.gate_up_proj
    weight.data = weight.data.roll(weight.shape[1] // 2, 1)


def interleave(layer):
    """Rows of gate and up in turn."""
    weight = layer.mlp.experts.gate_up_proj
    weight.data = torch.cat((weight.data[:, 0::2], weight.data[:, 1::2]), 1)


def mistakes(case):
    found = {
        "weights_not_renormalised": route(lambda p, k: p.topk(k, dim=-1)),
        "top_k_one_more": top(case.top_k + 1),
        "every_expert": top(case.experts),
        "smallest_experts": route(smallest),
        "experts_in_another_order": for_experts(turn_experts),
        "router_reads_before_the_norm": without_norm,
        "gate_and_up_swapped": for_experts(swap_gate_and_up),
        "gate_and_up_interleaved": for_experts(interleave),
        "rope_theta_of_llama": lambda m: set_frequencies(m, rope_frequencies(case.d // case.h, 1e4, None)),
    }
    if case.top_k > 1:
        found |= {"top_k_one_less": top(case.top_k - 1), "weights_even": route(even), "weights_swapped": route(swap_weights)}
    if case.dtype == torch.bfloat16:
        found["activations_in_bf16"] = lambda m: m.bfloat16()
    return found


def double_model(folder, case):
    model = open_eager(folder, torch.float64)
    return with_rope_in_double(model, rope_frequencies(case.d // case.h, case.theta, None))


def make_case(case):
    folder = OUT / case.name
    write_checkpoint(case, folder)
    model = open_eager(folder)
    prompts = draw_prompts(model, case)
    golden = [logits_of(model, p[0]) for p in prompts]
    with mock.patch.object(make_goldens, "mistakes", mistakes):
        missed = measure_mistakes(model, case, golden, prompts)
    shares = routing_of(model, prompts[-1][0])[0].mean(1)
    facts = {
        "made_with": versions(), "dtype": str(case.dtype).removeprefix("torch."),
        "layout": "fused" if case.fused else "separate", "tolerance": TOLERANCE,
        "greedy_margin": min(p[2] for p in prompts),
        "router_margin": min(routing_of(model, p[0] + p[1])[1] for p in prompts),
        "std_of_scores_per_layer": score_spread(model, prompts[-1][0]), "std_of_logits": float(torch.cat(golden).std()),
        "mean_routing_per_layer": shares.tolist(),
        "float32_error": greatest_difference(double_model(folder, case), golden, prompts), "peculiarities": missed}
    if min(*facts["std_of_scores_per_layer"], facts["std_of_logits"]) < 1 or float(shares.min()) < 0.05:
        raise SystemExit(f"{case.name}: scores or logits vary too little, or an expert sleeps: {facts}")
    if not facts["float32_error"] < TOLERANCE / 5:
        raise SystemExit(f"{case.name}: float32 alone is off by {facts['float32_error']:.1e}")
    tensors = golden_tensors(model, prompts, golden) | {
        f"prompt_{i}.routing": as_f32(routing_of(model, p[0])[0]) for i, p in enumerate(prompts)}
    save_tensors(tensors, folder / "golden.safetensors")
    write_json(folder / "golden.json", facts)
    weakest = min(missed, key=missed.get)
    print(f"{case.name}: logits {facts['std_of_logits']:.2f} margins {facts['greedy_margin']:.1e} "
          f"{facts['router_margin']:.1e} float32 error {facts['float32_error']:.1e} weakest {weakest} {missed[weakest]:.2g}")


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for case in CASES:
        make_case(case)


main()
