"""Writes tests/goldens/ for what a checkpoint may be stored as: tiny random checkpoints in FP8, MXFP4, GPTQ, AWQ and
compressed-tensors' four bits, and what transformers computes from the numbers that they stand for.

    pip install -r tools/requirements.txt compressed-tensors==0.20.0
    python tools/make_storage_goldens.py       (about a minute on one core; the tests only read what it wrote)

The integers are drawn at random; the model that computes the golden holds scale · (q - zero) in float32, and the same integers
are packed as each format packs them. The packing is written from each format's own sources, otherwise than the library reads it;
compressed-tensors' is done by its package. gpt_oss is MXFP4, gpt_oss_plain the same model as transformers saves it in bf16.
"""
import argparse
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import make_family_goldens as family
import make_goldens as base
from make_goldens import Case

GROUP = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # AutoAWQ: the output that the i-th four bits of a word hold
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)


def pack(nibbles):
    """[…, 8] → […], the first in the lowest bits, as I32."""
    shifted = nibbles.astype(np.uint32) << np.arange(0, 32, 4, dtype=np.uint32)
    return torch.from_numpy(np.bitwise_or.reduce(shifted, axis=-1).view(np.int32).copy())


def draw_integers(random, n, k, symmetric):
    """q [n, k] in 0 … 15, zero [n, groups], scale [n, groups] in f16: a spread of 1.3 / sqrt(k)."""
    q = np.clip(np.rint(random.normal(8, 3.5, (n, k))), 0, 15).astype(np.int64)
    groups = k // GROUP
    zero = np.full((n, groups), 8) if symmetric else random.integers(5, 11, (n, groups))
    scale = (random.uniform(0.25, 0.5, (n, groups)) / math.sqrt(k)).astype(np.float16)
    return q, zero.astype(np.int64), scale


def gptq(random, n, k, stem):
    """v1: zero points one less than they mean; inputs in an order of their own. → tensors, [n, k]"""
    q, zero, scale = draw_integers(random, n, k, symmetric=False)
    group = random.permutation(np.repeat(np.arange(k // GROUP), GROUP))
    tensors = {
        "qweight": pack(q.T.reshape(k // 8, 8, n).transpose(0, 2, 1)), "qzeros": pack((zero.T - 1).reshape(-1, n // 8, 8)),
        "scales": torch.from_numpy(np.ascontiguousarray(scale.T)), "g_idx": torch.from_numpy(group.astype(np.int32))}
    return {stem + name: t for name, t in tensors.items()}, scale.astype(np.float32)[:, group] * (q - zero[:, group])


def awq(random, n, k, stem):
    q, zero, scale = draw_integers(random, n, k, symmetric=False)
    of = np.repeat(np.arange(k // GROUP), GROUP)
    order = np.array(AWQ_ORDER)
    tensors = {
        "qweight": pack(q.T.reshape(k, n // 8, 8)[..., order]), "qzeros": pack(zero.T.reshape(-1, n // 8, 8)[..., order]),
        "scales": torch.from_numpy(np.ascontiguousarray(scale.T))}
    return {stem + name: t for name, t in tensors.items()}, scale.astype(np.float32)[:, of] * (q - zero[:, of])


def compressed(random, n, k, stem):
    """Symmetric for even rows of layers, else with zero points. The package adds 8 before it packs."""
    symmetric = "q_proj" in stem or "up_proj" in stem
    q, zero, scale = draw_integers(random, n, k, symmetric)
    of = np.repeat(np.arange(k // GROUP), GROUP)
    tensors = {"weight_packed": pack_to_int32(torch.from_numpy((q - 8).astype(np.int8)), 4),
               "weight_scale": torch.from_numpy(scale), "weight_shape": torch.tensor([n, k])}
    if not symmetric:
        tensors["weight_zero_point"] = pack_to_int32(torch.from_numpy((zero - 8).astype(np.int8)), 4, packed_dim=0)
    return {stem + name: t.contiguous() for name, t in tensors.items()}, scale.astype(np.float32)[:, of] * (q - zero[:, of])


def fp8(random, n, k, stem, block=(32, 48)):
    """Blocks that do not divide the matrix."""
    weight = torch.from_numpy(random.standard_normal((n, k)).astype(np.float32) * 40).to(torch.float8_e4m3fn)
    rows, columns = -(-n // block[0]), -(-k // block[1])
    scale = torch.from_numpy(random.uniform(0.5, 1.5, (rows, columns)).astype(np.float32) * (1.3 / 40 / math.sqrt(k)))
    of = scale.repeat_interleave(block[0], 0)[:n].repeat_interleave(block[1], 1)[:, :k]
    return {stem + "weight": weight, stem + "weight_scale_inv": scale}, (weight.float() * of).numpy()


def fp8_rows(random, n, k, stem):
    """compressed-tensors' float-quantized: a scale for each row, in bf16; for the tensor in down_proj."""
    weight = torch.from_numpy(random.standard_normal((n, k)).astype(np.float32) * 40).to(torch.float8_e4m3fn)
    shape = (1,) if "down_proj" in stem else (n, 1)
    scale = torch.from_numpy(random.uniform(0.5, 1.5, shape).astype(np.float32) * (1.3 / 40 / math.sqrt(k))).bfloat16()
    return {stem + "weight": weight, stem + "weight_scale": scale}, (weight.float() * scale.float()).numpy()


STORAGES = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "sym": False}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
    "compressed": (compressed, {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": GROUP, "strategy": "group"}}},
        "ignore": ["lm_head"]}),
    "fp8": (fp8, {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 48]}),
    "fp8_rows": (fp8_rows, {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}, "ignore": ["lm_head"]}),
}
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_golden(case, folder, model, facts):
    prompts = base.draw_prompts(model, case)
    golden = [base.logits_of(model, p[0]) for p in prompts]
    facts = {"made_with": base.versions(), "tolerance": base.TOLERANCE, "greedy_margin": min(p[2] for p in prompts),
             "std_of_scores_per_layer": base.score_spread(model, prompts[-1][0]),
             "std_of_logits": float(torch.cat(golden).std()), **facts}
    if min(*facts["std_of_scores_per_layer"], facts["std_of_logits"]) < 1:
        raise SystemExit(f"{case.name}: scores or logits vary too little: {facts}")
    base.save_tensors(base.golden_tensors(model, prompts, golden), folder / "golden.safetensors")
    base.write_json(folder / "golden.json", facts)
    print(case.name, facts, flush=True)
    return prompts, golden


def set_config(folder, **keys):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def make_storage(name, out):
    encode, quantization = STORAGES[name]
    case = Case(name, 80 + list(STORAGES).index(name), v=150, d=64, f=96, h=4, g=2)
    folder = out / name
    base.write_checkpoint(case, folder)
    model = base.open_model(folder)
    tensors, random = load_file(folder / "model.safetensors"), np.random.default_rng(case.seed)
    for full, weight in model.named_parameters():
        if full.split(".")[-2] not in LINEARS:
            continue
        stored, numbers = encode(random, *weight.shape, full.removesuffix("weight"))
        weight.data = torch.from_numpy(numbers.astype(np.float32))
        del tensors[full]
        tensors |= stored
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    set_config(folder, quantization_config=quantization)
    write_golden(case, folder, model, {})


# ---- gpt-oss ----------------------------------------------------------------------------------------------------------

GPT_OSS = Case("gpt_oss", 90, v=160, d=64, f=64, h=4, g=2, layers=2, width=16, dtype=torch.bfloat16, family="gpt_oss", more={
    "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 21, "swiglu_limit": 1.5, "pad_token_id": 0,
    "rope_parameters": {"rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                        "original_max_position_embeddings": 64, "rope_theta": 150000.0}})


def mxfp4(random, experts, n, k, spread):
    """Blocks and scales [experts, n, k/32, …], and the numbers that they stand for [experts, n, k]."""
    codes = random.integers(0, 16, (experts, n, k // 32, 32)).astype(np.uint8)
    power = np.rint(np.log2(spread / 3)) + random.integers(-1, 2, (experts, n, k // 32))
    numbers = (FP4[codes] * np.exp2(power)[..., None].astype(np.float32)).reshape(experts, n, k)
    blocks = codes[..., ::2] | (codes[..., 1::2] << 4)
    return torch.from_numpy(blocks), torch.from_numpy((power + 127).astype(np.uint8)), torch.from_numpy(numbers)


def draw_gpt_oss(model, case, random):
    family.draw_weights_of({"sinks": 1.0, "router": 2 / math.sqrt(case.d), "gate_up_proj": 1.5 / math.sqrt(case.d),
                            "down_proj": 1.5 / math.sqrt(case.f)}, model, case, random)


def make_gpt_oss(out):
    """The plain checkpoint first; its experts then become what MXFP4 can hold, in both."""
    case = GPT_OSS
    folder, plain = out / case.name, out / (case.name + "_plain")
    base.write_checkpoint(case, plain, draw=draw_gpt_oss)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(plain, folder)
    as_plain, random = load_file(plain / "model.safetensors"), np.random.default_rng(case.seed)
    as_mxfp4 = dict(as_plain)
    for layer in range(case.layers):
        for name, n, k in (("gate_up_proj", 2 * case.f, case.d), ("down_proj", case.d, case.f)):
            full = f"model.layers.{layer}.mlp.experts.{name}"
            blocks, scales, numbers = mxfp4(random, case.more["num_local_experts"], n, k, 1.5 / math.sqrt(k))
            as_plain[full] = numbers.transpose(1, 2).contiguous().bfloat16()
            assert torch.equal(as_plain[full].float().transpose(1, 2), numbers)
            del as_mxfp4[full]
            as_mxfp4 |= {full + "_blocks": blocks, full + "_scales": scales}
    for at, tensors in ((plain, as_plain), (folder, as_mxfp4)):
        save_file(tensors, at / "model.safetensors", metadata={"format": "pt"})
        (at / "model.safetensors").chmod(0o644)
    set_config(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]})
    model = base.open_model(plain)
    prompts, golden = write_golden(case, folder, model, {})
    measured = {}
    changes = {"window_left_out": family.keys(layer_types=["full_attention"] * case.layers),
               "alpha_left_out": family.keys(swiglu_alpha=1.0), "limit_left_out": family.keys(swiglu_limit=7.0)}
    edits = {"sinks_left_out": family.every("sinks", lambda w: w - 1e4), "router_bias_left_out": family.without("router.bias"),
             "gate_up_bias_left_out": family.without("gate_up_proj_bias"), "down_bias_left_out": family.without("down_proj_bias")}
    for name, wrong in family.wrong_models(plain, changes, edits):
        measured[name] = base.greatest_difference(wrong, golden, prompts)
        if not measured[name] > base.MUST_MISS:
            raise SystemExit(f"{case.name}: {name} moves the logits by {measured[name]:.1e} only")
    facts = json.loads((folder / "golden.json").read_text())
    base.write_json(folder / "golden.json", {**facts, "peculiarities": measured})
    shutil.copy(folder / "golden.safetensors", plain / "golden.safetensors")
    print(measured)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "tests" / "goldens")
    names = [*STORAGES, "gpt_oss"]
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in arguments.only:
        make_gpt_oss(arguments.out) if name == "gpt_oss" else make_storage(name, arguments.out)


if __name__ == "__main__":
    main()
