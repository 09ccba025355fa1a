"""Writes tests/goldens/mergoo3/ and mergoo4/: tiny random merges whose linear layers have routers of their own.

    pip install -r tools/requirements.txt && pip install --no-deps mergoo==0.0.10
    python tools/make_mergoo_goldens.py        (a minute on one core; the tests only read what it wrote)

The linear layers are mergoo's own (compose_layers.convert_linear_to_moe), put into transformers' Llama, whose code
mergoo's modeling_llama.py otherwise repeats. mergoo3 has three experts in each linear layer of the feed-forward layers, two
for a token, as mergoo's examples have them. mergoo4 has four, three for a token, in some linear layers of the first and
the last of three blocks, in bf16. Tensors are those of make_moe_goldens.py; `prompt_i.routing` [layers, T, experts] is the
mean over a block's routers, 0 without any. Prompts are drawn until every greedy step and every choice of experts is clear;
the script fails unless every mistake in `mistakes()` moves a logit by more than 100 of the tests' tolerances.
"""
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import transformers
from mergoo.compose_layers import MoeLayer, convert_linear_to_moe
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from make_goldens import (LENGTHS, MARGIN, TOLERANCE, as_f32, golden_tensors, greatest_difference, greedy, logits_of,
                          measure_mistakes, rope_frequencies, save_tensors, score_spread, versions, with_rope_in_double,
                          write_json)
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
    router_layers: list
    router_layers_index: list
    dtype: torch.dtype
    layers: int = 2
    d: int = 32
    h: int = 4
    g: int = 2
    theta: float = 1e4


CASES = [
    Case("mergoo3", 81, experts=3, top_k=2, v=90, f=36, router_layers=["gate_proj", "up_proj", "down_proj"],
         router_layers_index=[0, 1], dtype=torch.float32),
    Case("mergoo4", 91, experts=4, top_k=3, v=101, f=28, router_layers=["q_proj", "v_proj", "o_proj", "up_proj"],
         router_layers_index=[2, 0], dtype=torch.bfloat16, layers=3, theta=5e5),
]


def empty_model(case):
    config = LlamaConfig(
        vocab_size=case.v, hidden_size=case.d, intermediate_size=case.f, num_hidden_layers=case.layers,
        num_attention_heads=case.h, num_key_value_heads=case.g, rms_norm_eps=1e-5, max_position_embeddings=512,
        bos_token_id=1, eos_token_id=2, rope_parameters={"rope_theta": case.theta, "rope_type": "default"},
        attn_implementation="eager")
    config.num_experts, config.num_experts_per_tok = case.experts, case.top_k
    config.router_layers, config.router_layers_index = case.router_layers, case.router_layers_index
    model = LlamaForCausalLM(config).eval()
    for l, layer in enumerate(model.model.layers):
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    setattr(part, name, convert_linear_to_moe(name, config, l, linear.in_features, linear.out_features,
                                                              bias=False))
    return model


def write_checkpoint(case, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model = empty_model(case)
    random = np.random.default_rng(case.seed)
    gain = {"embed_tokens": 0.3, "lm_head": 2, "q_proj": 1.3, "k_proj": 1.3, "gate": 1.2, "gate_proj": 1.5, "down_proj": 1.5}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            words, shape = name.split("."), tuple(weight.shape)
            kind = words[-2] if "experts" not in words else words[words.index("experts") - 1]
            width = 1 if kind == "embed_tokens" else math.sqrt(shape[-1])
            drawn = (random.uniform(0.5, 1.5, shape) if "norm" in kind
                     else random.standard_normal(shape) * gain.get(kind, 1) / width)
            weight.copy_(torch.from_numpy(drawn))
    save_file({k: t.contiguous() for k, t in model.to(case.dtype).state_dict().items()}, folder / "model.safetensors",
              {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": case.v, "hidden_size": case.d,
              "intermediate_size": case.f, "num_hidden_layers": case.layers, "num_attention_heads": case.h,
              "num_key_value_heads": case.g, "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 512,
              "rope_theta": case.theta, "rope_scaling": None, "bos_token_id": 1, "eos_token_id": 2,
              "attention_bias": False, "tie_word_embeddings": False, "pretraining_tp": 1,
              "torch_dtype": str(case.dtype).removeprefix("torch."), "num_experts": case.experts,
              "num_experts_per_tok": case.top_k, "router_layers": case.router_layers,
              "router_layers_index": case.router_layers_index}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def open_merge(case, folder, dtype=torch.float32):
    model = empty_model(case)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.to(dtype)


def routed(model):
    """[[linear layers with a router] of every block]"""
    return [[m for m in layer.modules() if isinstance(m, MoeLayer)] for layer in model.model.layers]


@torch.no_grad()
def routing_of(model, case, ids):
    """(weights [layers, T, experts], the smallest difference of router logits between what was and was not chosen)"""
    apart, weights, kept = math.inf, [], {}
    handles = [m.gate.register_forward_hook(lambda gate, i, out: kept.__setitem__(gate, out[0]))
               for block in routed(model) for m in block]
    logits_of(model, ids)
    for handle in handles:
        handle.remove()
    for block in routed(model):
        mean = torch.zeros(len(ids), case.experts)
        for linear in block:
            ordered = kept[linear.gate].sort(dim=-1, descending=True)
            shares = ordered.values[:, :case.top_k].softmax(-1)
            mean += torch.zeros_like(mean).scatter_(1, ordered.indices[:, :case.top_k], shares) / len(block)
            apart = min(apart, float((ordered.values[:, case.top_k - 1] - ordered.values[:, case.top_k]).min()))
        weights.append(mean)
    return torch.stack(weights), apart


def draw_prompts(model, case):
    found = []
    for number, length in enumerate(LENGTHS):
        for attempt in range(400):
            random = np.random.default_rng([case.seed, number, attempt])
            prompt = [int(i) for i in random.integers(0, case.v, length)]
            if routing_of(model, case, prompt)[1] <= MARGIN:
                continue
            text, margin, last = greedy(lambda ids: logits_of(model, ids)[-1], prompt, STEPS)
            if margin > MARGIN and len(set(text)) >= 10 and routing_of(model, case, prompt + text)[1] > MARGIN:
                found.append((prompt, text, margin, last))
                break
        else:
            raise SystemExit(f"{case.name}: no usable prompt of {length} ids in 400 attempts")
    return found


def for_linears(change):
    def edit(model):
        for block in routed(model):
            for linear in block:
                change(linear)
    return edit


def route(choose):
    """An edit: every linear layer is Σ weights · experts, (weights, indices) = choose(router logits, top_k)."""
    def change(linear):
        def forward(x):
            weights, indices = choose(linear.gate(x), linear.num_experts_per_tok)
            full = torch.zeros(*x.shape[:-1], len(linear.experts), dtype=x.dtype).scatter_(-1, indices, weights)
            return sum(full[..., e, None] * expert(x) for e, expert in enumerate(linear.experts))
        linear.forward = forward
    return for_linears(change)


def of_logits(weigh, largest=True, more=0):
    def choose(logits, k):
        values, indices = logits.topk(k + more, dim=-1, largest=largest)
        return weigh(values), indices
    return route(choose)


def probabilities_as_they_are(logits, k):
    return logits.softmax(-1).topk(k, dim=-1)


def turn_experts(linear):
    linear.experts = torch.nn.ModuleList([*linear.experts[1:], linear.experts[0]])


def turn_routers(model):
    """Every router that reads what the next one does gives way to it."""
    for block in routed(model):
        for width in {m.in_features for m in block}:
            same = [m for m in block if m.in_features == width]
            for m, gate in zip(same, [m.gate for m in same[1:] + same[:1]]):
                m.gate = gate


def first_router_for_all(model):
    for block in routed(model):
        for m in block:
            if m.in_features == block[0].in_features:
                m.gate = block[0].gate


def routers_of_the_next_block(model):
    blocks = [b for b in routed(model) if b]
    gates = [[m.gate for m in b] for b in blocks]
    for block, others in zip(blocks, gates[1:] + gates[:1]):
        for m, gate in zip(block, others):
            m.gate = gate


def routers_read_before_the_norm(model):
    for layer in model.model.layers:
        for norm, part in ((layer.input_layernorm, layer.self_attn), (layer.post_attention_layernorm, layer.mlp)):
            def keep(module, args, part=part):
                part.unnormed = args[0]
            norm.register_forward_pre_hook(keep)
            for name, m in part.named_children():
                if isinstance(m, MoeLayer) and name not in ("o_proj", "down_proj"):
                    m.gate.register_forward_pre_hook(lambda module, args, part=part: (part.unnormed,))


def swap_gate_and_up(model):
    for layer in model.model.layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj


def mistakes(case):
    soft = lambda values: values.softmax(-1)
    found = {
        "probabilities_not_renormalised": route(probabilities_as_they_are),
        "every_expert": of_logits(soft, more=case.experts - case.top_k),
        "top_k_one_less": of_logits(soft, more=-1),
        "smallest_experts": of_logits(soft, largest=False),
        "weights_even": of_logits(lambda values: torch.full_like(values, 1 / case.top_k)),
        "weights_swapped": of_logits(lambda values: values.softmax(-1).flip(-1)),
        "experts_in_another_order": for_linears(turn_experts),
        "routers_of_other_linear_layers": turn_routers,
        "one_router_for_a_block": first_router_for_all,
        "routers_of_the_next_block": routers_of_the_next_block,
        "gate_and_up_swapped": swap_gate_and_up,
        "routers_read_before_the_norm": routers_read_before_the_norm,
    }
    if case.dtype == torch.bfloat16:
        found["activations_in_bf16"] = lambda m: m.bfloat16()
    return found


def double_model(folder, case):
    model = open_merge(case, folder, torch.float64)
    return with_rope_in_double(model, rope_frequencies(case.d // case.h, case.theta, None))


def make_case(case):
    folder = OUT / case.name
    write_checkpoint(case, folder)
    model = open_merge(case, folder)
    prompts = draw_prompts(model, case)
    golden = [logits_of(model, p[0]) for p in prompts]
    with mock.patch.object(make_goldens, "mistakes", mistakes):
        missed = measure_mistakes(model, case, golden, prompts)
    shares = routing_of(model, case, prompts[-1][0])[0].mean(1)
    facts = {
        "made_with": versions() | {"mergoo": "0.0.10"}, "dtype": str(case.dtype).removeprefix("torch."),
        "tolerance": TOLERANCE, "greedy_margin": min(p[2] for p in prompts),
        "router_margin": min(routing_of(model, case, p[0] + p[1])[1] for p in prompts),
        "std_of_scores_per_layer": score_spread(model, prompts[-1][0]), "std_of_logits": float(torch.cat(golden).std()),
        "mean_routing_per_layer": shares.tolist(),
        "float32_error": greatest_difference(double_model(folder, case), golden, prompts), "peculiarities": missed}
    asleep = min(float(s.min()) for l, s in enumerate(shares) if l in case.router_layers_index)
    if min(*facts["std_of_scores_per_layer"], facts["std_of_logits"]) < 1 or asleep < 0.05:
        raise SystemExit(f"{case.name}: scores or logits vary too little, or an expert sleeps: {facts}")
    if not facts["float32_error"] < TOLERANCE / 5:
        raise SystemExit(f"{case.name}: float32 alone is off by {facts['float32_error']:.1e}")
    tensors = golden_tensors(model, prompts, golden) | {
        f"prompt_{i}.routing": as_f32(routing_of(model, case, p[0])[0]) for i, p in enumerate(prompts)}
    save_tensors(tensors, folder / "golden.safetensors")
    write_json(folder / "golden.json", facts)
    weakest = min(missed, key=missed.get)
    print(f"{case.name}: logits {facts['std_of_logits']:.2f} margins {facts['greedy_margin']:.1e} "
          f"{facts['router_margin']:.1e} float32 error {facts['float32_error']:.1e} weakest {weakest} {missed[weakest]:.2g}")


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for case in CASES:
        make_case(case)


main()
