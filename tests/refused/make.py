#!/usr/bin/env python3
"""Writes the small hostile files beside this script: what the loaders must refuse, and the seeds of the fuzz targets.

A file's kind is in its name: *.safetensors, config_*.json (a Llama config), json_*.json (JSON alone).
Run it again after a change; the files are committed.
"""
import json
import struct
from pathlib import Path

HERE = Path(__file__).parent


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


W = {"w": tensor("F32", [1], 0, 4)}
FOUR = b"\x00\x00\xc0\x3f"

SAFETENSORS = {
    "empty": b"",
    "seven_bytes": b"\x02\x00\x00\x00\x00\x00\x00",
    "length_zero": safetensors(b""),
    "length_past_end": safetensors(W, FOUR, length=1000),
    "length_max": safetensors(W, FOUR, length=2**64 - 1),
    "length_wraps": safetensors(W, FOUR, length=2**64 - 8),
    "length_signed": safetensors(W, FOUR, length=2**63),
    "header_array": safetensors(b"[]"),
    "header_cut": safetensors(b'{"w":{"dtype":"F32"'),
    "header_not_utf8": safetensors(b'{"\xff":1}'),
    "header_zero_byte": safetensors(b"{}\x00"),
    "header_deep": safetensors(b'{"w":' + b"[" * 500),
    "name_twice": safetensors(b'{"w":' + json.dumps(W["w"]).encode() + b',"w":' + json.dumps(W["w"]).encode() + b"}", FOUR),
    "metadata_number": safetensors({"__metadata__": {"format": 1}}),
    "dtype_unknown": safetensors({"w": tensor("Q4_0", [1], 0, 4)}, FOUR),
    "dtype_missing": safetensors({"w": {"shape": [1], "data_offsets": [0, 4]}}, FOUR),
    "shape_negative": safetensors({"w": tensor("F32", [-1], 0, 4)}, FOUR),
    "shape_fraction": safetensors({"w": tensor("F32", [1.5], 0, 6)}, FOUR + b"\0\0"),
    "shape_wraps": safetensors({"w": tensor("F32", [2**32 + 1, 2**32 - 1], 0, 4)}, FOUR),
    "shape_huge_behind_zero": safetensors({"w": tensor("F32", [0, 2**62, 2**62], 0, 0)}),
    "offsets_reversed": safetensors({"w": tensor("F32", [1], 4, 0)}, FOUR),
    "offsets_near_max": safetensors({"w": tensor("F32", [1], 2**64 - 5, 2**64 - 1)}, FOUR),
    "overlap": safetensors({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, FOUR * 3),
    "hole": safetensors({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 8, 12)}, FOUR * 3),
    "data_short": safetensors(W, FOUR[:3]),
    "data_long": safetensors(W, FOUR + b"\0"),
}

GOOD = {
    "model_type": "llama", "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "tie_word_embeddings": False, "eos_token_id": [2, 3], "bos_token_id": 1, "rope_theta": 5e5,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}

CONFIGS = {
    "other_family": {"model_type": "mamba"},
    "vocab_zero": {"vocab_size": 0},
    "width_negative": {"hidden_size": -64},
    "width_huge": {"hidden_size": 10**30},
    "heads_do_not_divide": {"num_attention_heads": 6},
    "groups_do_not_divide": {"num_key_value_heads": 3},
    "head_dim_odd": {"head_dim": 15},
    "eos_outside": {"eos_token_id": [2, 100]},
    "bias": {"attention_bias": True},
    "rope_type_unknown": {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}},
    "rope_factor_string": {"rope_scaling": {**LLAMA3, "factor": "x"}},
    "rope_band_empty": {"rope_scaling": {**LLAMA3, "high_freq_factor": 0.5}},
    "rope_twice": {"rope_scaling": LLAMA3, "rope_parameters": {**LLAMA3, "rope_theta": 5e5, "factor": 4.0}},
    "layers_negative": {"num_hidden_layers": -1},
    "layers_fraction": {"num_hidden_layers": 1.5},
    "eps_negative": {"rms_norm_eps": -1e-5},
    "context_zero": {"max_position_embeddings": 0},
    "activation_other": {"hidden_act": "gelu"},
    "tie_as_text": {"tie_word_embeddings": "yes"},
    "theta_zero": {"rope_theta": 0},
    "quantised": {"quantization_config": {"quant_method": "gptq"}},
    "theta_twice": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
}

JSONS = {
    "empty": b"",
    "trailing_garbage": b"{} x",
    "zero_byte": b"{}\x00{}",
    "key_twice": b'{"a":1,"b":{"a":2},"a":3}',
    "deep": b"[" * 500 + b"]" * 500,
    "deep_objects": b'{"a":' * 100 + b"1" + b"}" * 100,
    "not_utf8": b'"\xc3("',
    "overlong": b'"\xc0\xaf"',
    "half_surrogate": b'"\\ud800"',
    "number_too_large": b"[1e999]",
    "comment": b"/* no */ {}",
    "lone_comma": b"[1,]",
    "single_quotes": b"{'a': 1}",
    "nan": b"[NaN]",
    "unescaped_newline": b'"a\nb"',
    "open_string": b'{"key": "val',
}

for name, content in SAFETENSORS.items():
    (HERE / f"{name}.safetensors").write_bytes(content)
for name, change in CONFIGS.items():
    (HERE / f"config_{name}.json").write_text(json.dumps({**GOOD, **change}) + "\n")
for name, content in JSONS.items():
    (HERE / f"json_{name}.json").write_bytes(content)
