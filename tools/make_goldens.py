"""Writes tests/goldens/: tiny random Llama checkpoints and what PyTorch's transformers computes from them.

    pip install -r tools/requirements.txt      (torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, …)
    python tools/make_goldens.py               (about ten seconds on one core; the tests only read what it wrote)

Per case: config.json and model*.safetensors in Hugging Face layout, golden.safetensors (numbers for the tests),
golden.json (facts for readers: how far each mistake would miss). tests/goldens/README.md explains the tensors.

Default initialisation hides mistakes (without Llama 3's rope scaling such logits move by 5e-5), so the weights are drawn
with attention scores and logits of a standard deviation >= 1, every greedy step has a margin > 1e-3, and this script
fails unless every mistake in `mistakes()` moves a logit by more than 100 tolerances.
Everything follows from fixed seeds; a prompt that is not usable (margin too small, greedy text in a short loop) is drawn again.
"""
import argparse
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
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

TOLERANCE = 1e-4            # what the library's tests allow on logits
MUST_MISS = 100 * TOLERANCE
MARGIN = 1e-3               # top1 - top2 at every greedy step
STEPS = 64                  # greedy ids per prompt
LENGTHS = (1, 17, 70)       # one token; within a page; across page borders (32, 64) and original_max_position 64
POSITIONS = (0, 1, 15, 16, 31, 32, 33, 47, 62, 63, 64, 65, 67, 68, 69)  # of the long prompt: logits are kept at these
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 64}


@dataclass
class Case:
    """One checkpoint. Dimension letters as in CONVENTIONS: v, d, f, h, g; `width` is the head width, None = d / h."""
    name: str
    seed: int
    v: int
    d: int
    f: int
    h: int
    g: int
    layers: int = 2
    width: int | None = None
    dtype: torch.dtype = torch.float32
    theta: float = 10000.0
    scaling: dict | None = None
    eps: float = 1e-5
    tied: bool = False
    embedding: float = 0.3          # its standard deviation; sqrt(eps) makes the first norm feel eps
    eos: int | list = 2
    config_style: str = "5"         # the transformers generation whose config.json this imitates
    shard_size: str | None = None
    subnormal_up_proj: bool = False  # f16: up_proj below 2^-14, down_proj makes up for it

    @property
    def head_width(self):
        return self.width or self.d // self.h


CASES = [
    # An early Llama 2 config.json: no rope_theta (10000 by default), no head_dim. Embeddings as small as real ones.
    Case("llama2", 21, v=160, d=32, f=72, h=4, g=4, layers=3, embedding=0.006, config_style="4"),
    # Llama 3's config.json: rope_theta outside, rope_scaling null.
    Case("llama3", 30, v=256, d=64, f=96, h=4, g=2, dtype=torch.bfloat16, theta=500000.0, config_style="4",
         embedding=0.006),
    Case("llama31", 31, v=199, d=64, f=88, h=4, g=2, theta=500000.0, scaling=LLAMA3_SCALING, eos=[2, 8, 9]),
    Case("llama32", 32, v=300, d=40, f=72, h=4, g=2, layers=3, width=16, dtype=torch.bfloat16, theta=500000.0,
         scaling=LLAMA3_SCALING, tied=True, eos=[2, 8, 9], config_style="4"),
    Case("sharded", 41, v=180, d=48, f=80, h=3, g=3, shard_size="70KB"),
    Case("f16", 42, v=170, d=48, f=53, h=6, g=3, dtype=torch.float16, embedding=0.006, subnormal_up_proj=True),
    Case("mqa", 43, v=201, d=48, f=54, h=3, g=1, eps=1e-2),
]


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def make_config(case):
    return LlamaConfig(
        vocab_size=case.v, hidden_size=case.d, intermediate_size=case.f, num_hidden_layers=case.layers,
        num_attention_heads=case.h, num_key_value_heads=case.g, head_dim=case.width, rms_norm_eps=case.eps,
        max_position_embeddings=512, tie_word_embeddings=case.tied, bos_token_id=1, eos_token_id=case.eos,
        rope_parameters={"rope_theta": case.theta, **(case.scaling or {"rope_type": "default"})})


def draw_weights(model, case, random):
    """Normal weights whose products keep a variance of order 1; norm weights uniform in 0.5 … 1.5."""
    up = 1e-5 if case.subnormal_up_proj else 1 / math.sqrt(case.d)
    spread = {
        "embed_tokens": case.embedding, "lm_head": 2 / math.sqrt(case.d),
        "q_proj": 1.3 / math.sqrt(case.d), "k_proj": 1.3 / math.sqrt(case.d), "v_proj": 1 / math.sqrt(case.d),
        "o_proj": 1 / math.sqrt(case.h * case.head_width), "gate_proj": 1.5 / math.sqrt(case.d), "up_proj": up,
        "down_proj": 1.5 / math.sqrt(case.f) / (up * math.sqrt(case.d))}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            shape, kind = tuple(weight.shape), name.split(".")[-2]
            drawn = random.uniform(0.5, 1.5, shape) if "norm" in kind else random.standard_normal(shape) * spread[kind]
            weight.copy_(torch.from_numpy(drawn))


def rewrite_config(path, case):
    """config.json as transformers 4 wrote it, or (style 5) as it is."""
    config = json.loads(path.read_text())
    if case.config_style == "4":
        rope = config.pop("rope_parameters")
        config["torch_dtype"] = config.pop("dtype")
        config["transformers_version"] = "4.44.0"
        theta = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        if theta != 10000.0:
            config["rope_theta"] = theta
        if case.width is None:
            del config["head_dim"]
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def write_checkpoint(case, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model = LlamaForCausalLM(make_config(case))
    draw_weights(model, case, np.random.default_rng(case.seed))
    model.to(case.dtype).save_pretrained(folder, max_shard_size=case.shard_size or "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    rewrite_config(folder / "config.json", case)


def open_model(folder, dtype=torch.float32):
    """The checkpoint as transformers reads it back: weights as stored (so rounded), then computed in `dtype`."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


# ---- goldens --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def logits_of(model, ids):
    """[T, v]"""
    return model(torch.tensor([list(ids)]), use_cache=False).logits[0].float()


@torch.no_grad()
def hidden_of(model, ids):
    """[T, d], after the final norm"""
    return model.model(torch.tensor([list(ids)]), use_cache=False).last_hidden_state[0]


def greedy(next_scores, prompt, steps):
    """Plain argmax over the whole prefix, not stopping anywhere: (ids, smallest top1 - top2, the last step's scores)."""
    ids, margin, scores = list(prompt), math.inf, None
    for _ in range(steps):
        scores = next_scores(ids)
        top = torch.topk(scores, 2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
    return ids[len(prompt):], margin, scores


def draw_prompts(model, case):
    """[(ids, greedy ids, margin, last scores)], one per length; drawn again until every greedy step is decided clearly."""
    found = []
    for number, length in enumerate(LENGTHS):
        for attempt in range(400):
            random = np.random.default_rng([case.seed, number, attempt])
            prompt = [int(i) for i in random.integers(0, case.v, length)]
            text, margin, last = greedy(lambda ids: logits_of(model, ids)[-1], prompt, STEPS)
            if margin > MARGIN and len(set(text)) >= 12:
                found.append((prompt, text, margin, last))
                break
        else:
            raise SystemExit(f"{case.name}: no usable prompt of {length} ids in 400 attempts")
    return found


def score_spread(model, ids):
    """The standard deviation of the attention scores q·k/sqrt(e) that the causal mask lets through, per layer."""
    spreads, original = [], modeling_llama.eager_attention_forward

    def measuring(module, query, key, value, mask, scaling, **rest):
        keys = modeling_llama.repeat_kv(key, module.num_key_value_groups)
        scores = (query @ keys.transpose(2, 3) * scaling)[0]
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        spreads.append(float(scores[:, visible].std()))
        return original(module, query, key, value, mask, scaling, **rest)

    with mock.patch.object(modeling_llama, "eager_attention_forward", measuring):
        logits_of(model, ids)
    return spreads


# ---- what a reader could get wrong -----------------------------------------------------------------------------------


def rope_frequencies(width, theta, scaling, smooth=True, dim=None):
    """Radians per position [width / 2] in float64. Source: Llama 3.1's apply_scaling (llama-models, model.py)."""
    frequencies = theta ** (-2.0 * np.arange(width // 2) / (dim or width))
    if scaling is None:
        return frequencies
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)  # in the original context
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0, 1) if smooth else (turns >= low).astype(float)
    return frequencies * (share + (1 - share) / scaling["factor"])


def set_frequencies(model, frequencies):
    model.model.rotary_emb.inv_freq = torch.from_numpy(np.asarray(frequencies)).to(model.dtype)


def double_model(folder, case):
    """The same function in float64, rope included: what the golden's own rounding is measured against."""
    model = open_model(folder, torch.float64)
    frequencies = torch.from_numpy(rope_frequencies(case.head_width, case.theta, case.scaling))

    def forward(x, position_ids):
        angles = position_ids[..., None].double() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    model.model.rotary_emb.forward = forward
    return model


def tile_heads(model, case):
    """Query head i reads key head i mod g, instead of i div (h / g)."""
    order = [i * case.g + j for j in range(case.g) for i in range(case.h // case.g)]
    for layer in model.model.layers:
        q, o = layer.self_attn.q_proj.weight, layer.self_attn.o_proj.weight
        q.data = q.data.view(case.h, case.head_width, case.d)[order].reshape(q.shape)
        o.data = o.data.view(case.d, case.h, case.head_width)[:, order].reshape(o.shape)


def interleave_rope(model, case):
    """Rope turns the pairs (0,1), (2,3), … instead of (0, e/2), (1, e/2+1), …: the same rows, read in another order."""
    order = [*range(0, case.head_width, 2), *range(1, case.head_width, 2)]
    for layer in model.model.layers:
        for weight in (layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight):
            weight.data = weight.data.view(-1, case.head_width, case.d)[:, order].reshape(weight.shape)


def for_norms(change):
    def edit(model):
        for module in model.modules():
            if isinstance(module, modeling_llama.LlamaRMSNorm):
                change(module)
    return edit


def for_layers(change):
    def edit(model):
        for layer in model.model.layers:
            change(layer)
    return edit


def swap_gate_and_up(layer):
    layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj


def flush_subnormals(model):
    for weight in model.parameters():
        weight.data[weight.data.abs() < 2.0 ** -14] = 0


def mistakes(case):
    """name → an edit of the model that makes it what a decoder with that mistake would be."""
    width, other_theta = case.head_width, 500000.0 if case.theta == 10000.0 else 10000.0

    def rope(*how, **more):
        return lambda m: set_frequencies(m, rope_frequencies(*how, **more))

    def norm_weight(change):
        return for_norms(lambda n: setattr(n, "weight", torch.nn.Parameter(change(n.weight.data))))

    found = {
        "rope_left_out": lambda m: set_frequencies(m, np.zeros(width // 2)),
        "rope_theta_other": rope(width, other_theta, case.scaling),
        "rope_pairs_interleaved": lambda m: interleave_rope(m, case),
        "norm_weights_left_out": norm_weight(torch.ones_like),
        "norm_weights_plus_one": norm_weight(lambda w: w + 1),
        "final_norm_left_out": lambda m: setattr(m.model, "norm", torch.nn.Identity()),
        "gate_and_up_swapped": for_layers(swap_gate_and_up),
        "gelu_for_silu": for_layers(lambda l: setattr(l.mlp, "act_fn", torch.nn.GELU())),
        "scores_not_scaled": for_layers(lambda l: setattr(l.self_attn, "scaling", 1.0)),
    }
    if case.embedding < 0.01 or case.eps > 1e-3:
        found["eps_a_tenth"] = for_norms(lambda n: setattr(n, "variance_epsilon", case.eps / 10))
    if 1 < case.g < case.h:
        found["key_heads_tiled"] = lambda m: tile_heads(m, case)
    if case.scaling:
        linear = rope_frequencies(width, case.theta, None) / case.scaling["factor"]
        found["rope_scaling_left_out"] = rope(width, case.theta, None)
        found["rope_scaling_of_every_frequency"] = lambda m: set_frequencies(m, linear)
        found["rope_scaling_without_smooth_band"] = rope(width, case.theta, case.scaling, smooth=False)
    if case.width:
        derived = case.d // case.h
        found["scores_scaled_by_derived_head_dim"] = for_layers(lambda l: setattr(l.self_attn, "scaling", derived ** -0.5))
        found["rope_of_derived_head_dim"] = rope(width, case.theta, case.scaling, dim=derived)
    if case.tied:
        fresh = torch.from_numpy(np.random.default_rng(0).standard_normal((case.v, case.d)) * case.embedding).float()
        found["lm_head_not_tied"] = lambda m: setattr(m.lm_head, "weight", torch.nn.Parameter(fresh))
    if case.dtype == torch.bfloat16:
        found["activations_in_bf16"] = lambda m: m.bfloat16()
    if case.subnormal_up_proj:
        found["f16_subnormals_flushed"] = flush_subnormals
    return found


def greatest_difference(model, golden, prompts):
    return max(float((logits_of(model, p[0]) - g).abs().max()) for p, g in zip(prompts, golden))


def measure_mistakes(model, case, golden, prompts):
    measured = {}
    for name, edit in mistakes(case).items():
        wrong = copy.deepcopy(model)
        edit(wrong)
        measured[name] = greatest_difference(wrong, golden, prompts)
        if not measured[name] > MUST_MISS:
            raise SystemExit(f"{case.name}: {name} moves the logits by {measured[name]:.1e} only")
    return measured


# ---- one case --------------------------------------------------------------------------------------------------------


def as_f32(values):
    return np.ascontiguousarray(np.asarray(values, dtype=np.float32))


def golden_tensors(model, prompts, golden):
    tensors = {}
    for i, ((ids, text, _, last), logits) in enumerate(zip(prompts, golden)):
        positions = list(range(len(ids))) if len(ids) < 20 else list(POSITIONS)
        tensors |= {
            f"prompt_{i}.ids": as_f32(ids), f"prompt_{i}.positions": as_f32(positions),
            f"prompt_{i}.logits": as_f32(logits[positions]), f"prompt_{i}.hidden": as_f32(hidden_of(model, ids)[-1]),
            f"greedy_{i}.ids": as_f32(text), f"greedy_{i}.logits": as_f32(last)}
    return tensors


def versions():
    return {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def make_case(case, out):
    folder = out / case.name
    write_checkpoint(case, folder)
    model = open_model(folder)
    prompts = draw_prompts(model, case)
    golden = [logits_of(model, p[0]) for p in prompts]
    facts = {
        "made_with": versions(),
        "dtype": str(case.dtype).removeprefix("torch."),
        "config_style": f"transformers {case.config_style}",
        "tolerance": TOLERANCE,
        "prompt_lengths": [len(p[0]) for p in prompts],
        "greedy_margin": min(p[2] for p in prompts),
        "std_of_scores_per_layer": score_spread(model, prompts[-1][0]),
        "std_of_logits": float(torch.cat(golden).std()),
        "float32_error": greatest_difference(double_model(folder, case), golden, prompts),
        "peculiarities": measure_mistakes(model, case, golden, prompts)}
    if min(*facts["std_of_scores_per_layer"], facts["std_of_logits"]) < 1:
        raise SystemExit(f"{case.name}: scores or logits vary too little: {facts}")
    if not facts["float32_error"] < TOLERANCE / 5:
        raise SystemExit(f"{case.name}: float32 alone is off by {facts['float32_error']:.1e}")
    save_file(golden_tensors(model, prompts, golden), folder / "golden.safetensors")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    write_json(folder / "golden.json", facts)
    weakest = min(facts["peculiarities"], key=facts["peculiarities"].get)
    print(f"{case.name}: scores {min(facts['std_of_scores_per_layer']):.2f} logits {facts['std_of_logits']:.2f} "
          f"margin {facts['greedy_margin']:.1e} float32 error {facts['float32_error']:.1e} "
          f"weakest {weakest} {facts['peculiarities'][weakest]:.2g}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "tests" / "goldens")
    parser.add_argument("--only", nargs="*", choices=[c.name for c in CASES], default=[c.name for c in CASES])
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for case in CASES:
        if case.name in arguments.only:
            make_case(case, arguments.out)


if __name__ == "__main__":
    main()
