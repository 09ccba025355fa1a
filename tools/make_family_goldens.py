"""Writes tests/goldens/ for the families beside Llama: a tiny random checkpoint each, and what transformers computes from it.

    pip install -r tools/requirements.txt
    python tools/make_family_goldens.py        (about a minute on one core; the tests only read what it wrote)

Every case turns on all that its family does differently from Llama, and names each: this script fails unless a decoder that
leaves one of them out is off by more than 100 tolerances. Such a decoder is transformers' own, from a changed config or changed
weights. Files, tensors and tolerances are those of make_goldens.py.
"""
import argparse
import copy
import math
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

import make_goldens as base
from make_goldens import Case

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
LONGROPE = {"rope_type": "longrope", "partial_rotary_factor": 0.75, "original_max_position_embeddings": 64,
            "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5], "long_factor": [1.2, 1.9, 3.1, 5.0, 8.0, 12.0]}
# Greedy ids of phi3: a text then stays on the side of 64 positions on which its prompt lies.
PHI3_STEPS = 40


def every(part, change):
    """An edit of the weights whose name has that part."""
    def edit(model):
        for name, weight in model.named_parameters():
            if part in name:
                weight.data = change(weight.data)
    return edit


def without(part):
    return every(part, torch.zeros_like)


def rope(**changed):
    """A change of the config's rope; nested by type of layer where it is."""
    def change(config):
        parameters = copy.deepcopy(config.rope_parameters)
        flat = "rope_type" in parameters
        for one in [parameters] if flat else parameters.values():
            one.update({key: value for key, value in changed.items() if flat or key in one})
        config.rope_parameters = parameters
    return change


def keys(**changed):
    def change(config):
        for key, value in changed.items():
            setattr(config, key, value)
    return change


def plain_rope(config):
    config.rope_parameters = {"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]}


# case: (changes of the config, edits of the weights), each a mistake by its name.
CASES = [
    (Case("llama_bias", 60, v=170, d=48, f=64, h=4, g=2, more={"attention_bias": True, "mlp_bias": True}), {}, {
        "qkv_bias_left_out": without("v_proj.bias"), "o_bias_left_out": without("o_proj.bias"),
        "gate_bias_left_out": without("gate_proj.bias"), "up_bias_left_out": without("up_proj.bias"),
        "down_bias_left_out": without("down_proj.bias")}),
    (Case("qwen2", 61, v=210, d=64, f=72, h=4, g=2, layers=3, dtype=torch.bfloat16, scaling=YARN, family="qwen2",
          more={"use_sliding_window": True, "sliding_window": 21, "max_window_layers": 1}), {
        "window_left_out": keys(layer_types=["full_attention"] * 3),
        "window_everywhere": keys(layer_types=["sliding_attention"] * 3),
        "window_one_more": keys(sliding_window=22),
        "yarn_left_out": plain_rope, "yarn_without_its_factor": rope(attention_factor=1.0)}, {
        "q_bias_left_out": without("q_proj.bias"), "k_bias_left_out": without("k_proj.bias"),
        "v_bias_left_out": without("v_proj.bias")}),
    (Case("qwen3", 62, v=230, d=40, f=72, h=4, g=2, layers=2, width=16, theta=1e6, tied=True, eps=1e-6, family="qwen3"), {}, {
        "q_norm_left_out": every("q_norm", torch.ones_like), "k_norm_left_out": every("k_norm", torch.ones_like)}),
    (Case("qwen3_moe", 63, v=180, d=48, f=200, h=4, g=2, layers=2, width=16, theta=1e6, family="qwen3_moe",
          more={"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "norm_topk_prob": False,
                "decoder_sparse_step": 1, "mlp_only_layers": []}), {
        "weights_renormalised": keys(norm_topk_prob=True), "one_expert_a_token": keys(num_experts_per_tok=1)}, {}),
    (Case("phi3", 64, v=190, d=64, f=80, h=4, g=2, layers=2, scaling=LONGROPE, family="phi3",
          more={"sliding_window": 23, "original_max_position_embeddings": 64, "pad_token_id": 0}), {
        "window_left_out": keys(sliding_window=None),
        "long_for_short": rope(short_factor=LONGROPE["long_factor"]),
        "short_for_long": rope(long_factor=LONGROPE["short_factor"]),
        "cosines_not_scaled": rope(attention_factor=1.0)}, {
        "q_and_k_swapped": every("qkv_proj", lambda w: torch.cat((w[32:64], w[:32], w[64:]))),
        "gate_and_up_swapped": every("gate_up_proj", lambda w: torch.cat((w[80:], w[:80])))}),
    (Case("gemma2", 65, v=220, d=48, f=72, h=4, g=2, layers=3, width=16, tied=True, embedding=0.16, eps=1e-6, family="gemma2",
          more={"sliding_window": 21, "query_pre_attn_scalar": 9, "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 5.0}), {
        "score_cap_left_out": keys(attn_logit_softcapping=None), "logit_cap_left_out": keys(final_logit_softcapping=None),
        "scale_by_head_dim": keys(query_pre_attn_scalar=16),
        "windows_in_the_other_layers": keys(layer_types=["full_attention", "sliding_attention", "full_attention"]),
        "silu_for_gelu": keys(hidden_activation="silu")}, {
        "norms_without_the_one": every("norm.weight", lambda w: w - 1),
        "norm_behind_attention_left_out": every("post_attention_layernorm", torch.zeros_like),
        "norm_behind_feed_forward_left_out": every("post_feedforward_layernorm", torch.zeros_like),
        "embedding_not_scaled": lambda m: setattr(m.model.embed_tokens, "embed_scale", torch.tensor(1.0))}),
    (Case("gemma3", 66, v=220, d=48, f=72, h=4, g=2, layers=4, width=16, tied=True, embedding=0.16, eps=1e-6, family="gemma3_text",
          more={"sliding_window": 21, "query_pre_attn_scalar": 9, "_sliding_window_pattern": 2,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5},
                                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e3}}}), {
        "one_rope_for_all": rope(rope_theta=1e5), "linear_factor_left_out": rope(factor=1.0),
        "window_left_out": keys(layer_types=["full_attention"] * 4)}, {
        "q_norm_left_out": every("q_norm", torch.zeros_like), "k_norm_left_out": every("k_norm", torch.zeros_like),
        "norms_without_the_one": every("norm.weight", lambda w: w - 1)}),
    (Case("smollm3", 67, v=200, d=64, f=72, h=4, g=2, layers=4, theta=2e6, tied=True, eps=1e-6, family="smollm3",
          more={"no_rope_layer_interval": 2, "use_sliding_window": False, "pad_token_id": 0}), {
        "rope_everywhere": keys(no_rope_layers=[1, 1, 1, 1])}, {}),
    (Case("olmo2", 68, v=200, d=64, f=72, h=4, g=2, layers=3, theta=5e5, eps=1e-6, family="olmo2", more={"pad_token_id": 0}), {}, {
        "q_norm_left_out": every("q_norm", torch.ones_like), "k_norm_left_out": every("k_norm", torch.ones_like),
        "norm_behind_attention_left_out": every("post_attention_layernorm", torch.ones_like)}),
]


def draw_weights(model, case, random):
    draw_weights_of({}, model, case, random)


def draw_weights_of(more, model, case, random):
    """As make_goldens draws them. Norms of heads a little greater; Gemma's scale by 1 + w; biases that matter.
    more: the spread of weights by their name, before those that all families have."""
    spread = {
        "embed_tokens": case.embedding, "lm_head": 2 / math.sqrt(case.d), "qkv_proj": 1.3 / math.sqrt(case.d),
        "q_proj": 1.3 / math.sqrt(case.d), "k_proj": 1.3 / math.sqrt(case.d), "v_proj": 1 / math.sqrt(case.d),
        "o_proj": 1 / math.sqrt(case.h * case.head_width), "gate_proj": 1.5 / math.sqrt(case.d),
        "gate_up_proj": 1.3 / math.sqrt(case.d), "up_proj": 1 / math.sqrt(case.d), "down_proj": 1.5 / math.sqrt(case.f),
        "gate": 2 / math.sqrt(case.d), **more}
    if case.family == "qwen3_moe":
        spread["down_proj"] = 1.5 / math.sqrt(case.more["moe_intermediate_size"])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            shape, kind = tuple(weight.shape), name.split(".")[-2]
            kind = name.split(".")[-1] if kind == "experts" or name.endswith("sinks") else kind
            if "norm" in kind:
                one = 1 if case.family.startswith("gemma") else 0
                least, most = (0.9, 1.9) if kind in ("q_norm", "k_norm") else (0.5, 1.5)
                if one and kind.startswith("post_"):  # else a token's own embedding, which is the head too, goes before all
                    least, most = 2.0, 4.0
                drawn = random.uniform(least - one, most - one, shape)
            elif name.endswith("bias"):
                drawn = random.standard_normal(shape) * 0.5
            else:
                drawn = random.standard_normal(shape) * spread[kind]
            weight.copy_(torch.from_numpy(drawn))


def wrong_models(folder, changes, edits):
    """(name, model): each with one mistake."""
    for name, change in changes.items():
        config = transformers.AutoConfig.from_pretrained(folder)
        change(config)
        yield name, AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, attn_implementation="eager").eval()
    for name, edit in edits.items():
        model = base.open_model(folder)
        edit(model)
        yield name, model


def make_case(case, changes, edits, out):
    folder = out / case.name
    base.write_checkpoint(case, folder, draw=draw_weights)
    model = base.open_model(folder)
    prompts = base.draw_prompts(model, case, PHI3_STEPS if case.name == "phi3" else base.STEPS)
    golden = [base.logits_of(model, p[0]) for p in prompts]
    double = base.open_model(folder, torch.float64)
    if case.family == "qwen3_moe":
        double.set_experts_implementation("eager")
    facts = {
        "made_with": base.versions(), "dtype": str(case.dtype).removeprefix("torch."), "tolerance": base.TOLERANCE,
        "prompt_lengths": [len(p[0]) for p in prompts], "greedy_margin": min(p[2] for p in prompts),
        "std_of_scores_per_layer": base.score_spread(model, prompts[-1][0]), "std_of_logits": float(torch.cat(golden).std()),
        "float32_error": base.greatest_difference(double, golden, prompts), "peculiarities": {}}
    for name, wrong in wrong_models(folder, changes, edits):
        measured = base.greatest_difference(wrong, golden, prompts)
        facts["peculiarities"][name] = measured
        if not measured > base.MUST_MISS:
            raise SystemExit(f"{case.name}: {name} moves the logits by {measured:.1e} only")
    if min(*facts["std_of_scores_per_layer"], facts["std_of_logits"]) < 1:
        raise SystemExit(f"{case.name}: scores or logits vary too little: {facts}")
    if not facts["float32_error"] < base.TOLERANCE / 5:
        raise SystemExit(f"{case.name}: float32 alone is off by {facts['float32_error']:.1e}")
    base.save_tensors(base.golden_tensors(model, prompts, golden), folder / "golden.safetensors")
    base.write_json(folder / "golden.json", facts)
    print(case.name, {key: value for key, value in facts.items() if key not in ("made_with", "dtype")}, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "tests" / "goldens")
    names = [case.name for case, *_ in CASES]
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for case, changes, edits in CASES:
        if case.name in arguments.only:
            make_case(case, changes, edits, arguments.out)


if __name__ == "__main__":
    main()
