#!/usr/bin/env python3
"""Writes the small hostile files beside this script: what the loaders must refuse, and the seeds of the fuzz targets.

A file's kind is in its name: *.safetensors, config_*.json (a Llama config), adapter_*.json (a LoRA adapter's config),
delta_*.json (a low-bit difference's config), team_*.json (a team), json_*.json (JSON alone). folder/ is a whole
checkpoint of which several things are not understood, sentencepiece/ one without a tokenizer.json, for finteam-inspect.
Run it again after a change; the files are committed.
"""
import json
import math
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
    "unknown_flag": {"use_parallel_residual": True},
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

ADAPTER = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "use_rslora": False,
           "bias": "none", "rank_pattern": {"layers.0.self_attn.q_proj": 4}, "alpha_pattern": {}}

ADAPTERS = {
    "other_kind": {"peft_type": "IA3"},
    "kind_missing": {"peft_type": ...},
    "rank_missing": {"r": ...},
    "rank_zero": {"r": 0},
    "rank_negative": {"r": -8},
    "rank_fraction": {"r": 0.5},
    "rank_huge": {"r": 2**63},
    "rank_text": {"r": "8"},
    "alpha_missing": {"lora_alpha": ...},
    "alpha_text": {"lora_alpha": "16"},
    "alpha_huge": {"lora_alpha": 1e300},
    "rslora_number": {"use_rslora": 1},
    "dora": {"use_dora": True},
    "dora_text": {"use_dora": "no"},
    "bias_all": {"bias": "all"},
    "bias_list": {"bias": []},
    "start_changes_base": {"init_lora_weights": "olora"},
    "layers_repeated": {"layer_replication": [[0, 1]]},
    "patterns_list": {"rank_pattern": ["q_proj"]},
    "pattern_rank_zero": {"rank_pattern": {"q_proj": 0}},
    "pattern_rank_text": {"rank_pattern": {"q_proj": "4"}},
    "pattern_alpha_null": {"alpha_pattern": {"q_proj": None}},
    "pattern_open_group": {"rank_pattern": {"(q_proj": 4}},
    "pattern_lone_bracket": {"alpha_pattern": {"[q_proj": 4}},
    "pattern_long": {"rank_pattern": {"q" * 5000: 4}},
    "pattern_hangs": {"rank_pattern": {"(?:[a-z0-9_.]+)+[0-9]": 4}},
    "patterns_differ": {"rank_pattern": {"q_proj": 4, "self_attn.q_proj": 5}},
    "deep": {"target_modules": json.loads("[" * 40 + "]" * 40)},
}

DELTA = {"finteam_delta": 1, "bits": 1, "scales": "row", "base_header_hash": "0123456789abcdef",
         "base_hash": "fedcba9876543210"}

DELTAS = {
    "version_missing": {"finteam_delta": ...},
    "version_later": {"finteam_delta": 2},
    "version_text": {"finteam_delta": "1"},
    "bits_missing": {"bits": ...},
    "bits_zero": {"bits": 0},
    "bits_four": {"bits": 4},
    "bits_fraction": {"bits": 1.5},
    "bits_text": {"bits": "1"},
    "scales_missing": {"scales": ...},
    "scales_other": {"scales": "group"},
    "scales_number": {"scales": 1},
    "header_hash_missing": {"base_header_hash": ...},
    "header_hash_short": {"base_header_hash": "0123456789abcde"},
    "hash_missing": {"base_hash": ...},
    "hash_upper": {"base_hash": "FEDCBA9876543210"},
    "hash_number": {"base_hash": 1234567890123456},
    "unknown_key": {"rank": 4},
    "deep": {"rank": [[[[4]]]]},
    "many_values": {"rank": [4] * 200},
}

TEAM = {
    "finteam": 1,
    "roles": [{"name": "macro", "path": "macro"}, {"name": "quant", "path": "quant"}],
    "gate": {"file": "gate.safetensors", "reads": "prompt_mean_hidden", "of": "macro", "per": "prompt", "top_k": 1,
             "temperature": 1.0},
    "mix_in": "probabilities", "chat": "llama-3", "tokenizer": "tokenizer.json",
    "tasks": {"tone": {"instruction": "Which?", "input": "Text: {text}", "labels": ["a", "b"], "prior": [0.5, 0.5],
                       "calibration": "tone.json", "abstain": {"most_labels": 1}}},
}


def team(path, value):
    """TEAM with one value replaced, or taken out (...)."""
    t = json.loads(json.dumps(TEAM))
    at = t
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return t


GATE, TONE = ("gate",), ("tasks", "tone")
TEAMS = {
    "version_missing": (("finteam",), ...),
    "version_text": (("finteam",), "1"),
    "unknown_key": (("experts",), []),
    "roles_missing": (("roles",), ...),
    "roles_object": (("roles",), {"macro": "macro"}),
    "roles_empty": (("roles",), []),
    "roles_many": (("roles",), [{"name": str(i), "path": "macro"} for i in range(65)]),
    "role_text": (("roles", 0), "macro"),
    "role_unknown_key": (("roles", 0, "weight"), 1),
    "role_name_twice": (("roles", 1, "name"), "macro"),
    "role_name_number": (("roles", 1, "name"), 1),
    "path_climbs": (("roles", 0, "path"), "a/../../b"),
    "path_absolute": (("roles", 0, "path"), "/etc"),
    "path_empty": (("roles", 0, "path"), ""),
    "path_backslash": (("roles", 0, "path"), "..\\macro"),
    "path_zero_byte": (("roles", 0, "path"), "macro\0"),
    "path_number": (("roles", 0, "path"), 7),
    "base_climbs": (("base",), ".."),
    "merged_with_gate": (("merged",), "merged"),
    "tokenizer_climbs": (("tokenizer",), "../tokenizer.json"),
    "gate_missing": (GATE, ...),
    "gate_list": (GATE, []),
    "gate_reads_missing": ((*GATE, "reads"), ...),
    "gate_reads_other": ((*GATE, "reads"), "tea leaves"),
    "gate_file_missing": ((*GATE, "file"), ...),
    "gate_file_climbs": ((*GATE, "file"), "../gate.safetensors"),
    "gate_of_unknown": ((*GATE, "of"), "nano"),
    "gate_of_base": ((*GATE, "of"), "base"),
    "gate_per_other": ((*GATE, "per"), "paragraph"),
    "gate_top_k_zero": ((*GATE, "top_k"), 0),
    "gate_top_k_large": ((*GATE, "top_k"), 3),
    "gate_temperature_zero": ((*GATE, "temperature"), 0),
    "gate_floor_large": ((*GATE, "floor"), 0.6),
    "gate_layer_negative": ((*GATE, "layer"), -1),
    "gate_renormalise_text": ((*GATE, "renormalise"), "no"),
    "gate_renormalise_off": ((*GATE, "renormalise"), False),
    "gate_unknown_key": ((*GATE, "prior"), [1, 1]),
    "gate_prior_short": (GATE, {"reads": "prior", "prior": [1]}),
    "gate_prior_negative": (GATE, {"reads": "prior", "prior": [1, -1]}),
    "gate_rate_negative": (GATE, {"reads": "performance", "rate": -1}),
    "gate_switch_one": (GATE, {"reads": "performance", "switch_probability": 1}),
    "mix_other": (("mix_in",), "ranks"),
    "mix_deltas_without_base": (("mix_in",), "deltas"),
    "chat_number": (("chat",), 3),
    "chat_list": (("chat",), ["llama-3"]),
    "chat_other": (("chat",), "llama-9"),
    "chat_like_other": (("chat",), {"like": "llama-9"}),
    "chat_like_number": (("chat",), {"like": 3}),
    "chat_unknown_key": (("chat",), {"like": "llama-3", "stop": "<|eot_id|>"}),
    "chat_turn_unknown_key": (("chat",), {"like": "llama-3", "user": {"trim": True}}),
    "chat_turn_text": (("chat",), {"like": "llama-3", "user": "<|eot_id|>"}),
    "chat_user_missing": (("chat",), {"assistant": {"after": "\n"}}),
    "chat_strip_other": (("chat",), {"like": "llama-3", "user": {"strip": "left"}}),
    "chat_system_in_other": (("chat",), {"like": "gemma-3", "system": {"in": "second_user"}}),
    "chat_token_empty": (("chat",), {"like": "llama-3", "tokens": [""]}),
    "chat_tokens_many": (("chat",), {"like": "llama-3", "tokens": ["<s>"] * 65}),
    "chat_date_missing": (("chat",), {"user": {"before": "It is {date}.\n"}, "assistant": {}}),
    "chat_date_unused": (("chat",), {"like": "llama-3", "date": "1 Jan 2026"}),
    "tasks_list": (("tasks",), [TEAM["tasks"]["tone"]]),
    "task_unknown_key": ((*TONE, "priors"), [1, 1]),
    "task_slot_missing": ((*TONE, "input"), "Text:"),
    "labels_missing": ((*TONE, "labels"), ...),
    "labels_empty": ((*TONE, "labels"), []),
    "label_empty": ((*TONE, "labels"), ["a", ""]),
    "label_twice": ((*TONE, "labels"), ["a", "a"]),
    "label_number": ((*TONE, "labels"), ["a", 1]),
    "prior_short": ((*TONE, "prior"), [1]),
    "prior_zero": ((*TONE, "prior"), [1, 0]),
    "prior_text": ((*TONE, "prior"), ["1", "1"]),
    "calibration_climbs": ((*TONE, "calibration"), "../tone.json"),
    "abstain_without_calibration": ((*TONE, "calibration"), ...),
    "abstain_labels_zero": ((*TONE, "abstain"), {"most_labels": 0}),
    "abstain_unknown_key": ((*TONE, "abstain"), {"labels": 1}),
    "deep": (("mix_in",), json.loads("[" * 40 + "]" * 40)),
}


def changed(good, change):
    return {key: value for key, value in {**good, **change}.items() if value is not ...}


for kind, good, changes in (("adapter", ADAPTER, ADAPTERS), ("delta", DELTA, DELTAS)):
    for name, change in changes.items():
        (HERE / f"{kind}_{name}.json").write_text(json.dumps(changed(good, change)) + "\n")
for name, (path, value) in TEAMS.items():
    (HERE / f"team_{name}.json").write_text(json.dumps(team(path, value)) + "\n")
for name, content in SAFETENSORS.items():
    (HERE / f"{name}.safetensors").write_bytes(content)
for name, change in CONFIGS.items():
    (HERE / f"config_{name}.json").write_text(json.dumps({**GOOD, **change}) + "\n")
for name, content in JSONS.items():
    (HERE / f"json_{name}.json").write_bytes(content)

TINY = {"vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 6, "eos_token_id": 2}
LAYER = "model.layers.0."
SHAPES = {
    "model.embed_tokens.weight": [8, 4], "lm_head.weight": [8, 4], "model.norm.weight": [4],
    LAYER + "input_layernorm.weight": [4], LAYER + "post_attention_layernorm.weight": [4],
    LAYER + "self_attn.q_proj.weight": [4, 4], LAYER + "self_attn.k_proj.weight": [2, 4],
    LAYER + "self_attn.v_proj.weight": [2, 4], LAYER + "self_attn.o_proj.weight": [4, 4],
    LAYER + "mlp.gate_proj.weight": [6, 4], LAYER + "mlp.up_proj.weight": [6, 4], LAYER + "mlp.down_proj.weight": [4, 6],
    LAYER + "self_attn.z_proj.weight": [3],
}


def tiny_model():
    header, data = {}, b""
    for name, shape in SHAPES.items():
        numbers = [((17 * i + 5 * len(name)) % 29 - 14) / 8 for i in range(math.prod(shape))]
        header[name] = tensor("F32", shape, len(data), len(data) + 4 * len(numbers))
        data += struct.pack(f"<{len(numbers)}f", *numbers)
    return safetensors(header, data)


FOLDER = {
    "config.json": {**GOOD, **TINY, "mystery_scale": 2.5, "rope_scaling": {"rope_type": "spiral", "factor": 2.0}},
    "generation_config.json": {"eos_token_id": [2, 8]},
    "tokenizer.json": {"version": "1.0", "model": {"type": "Morse", "vocab": {}}, "added_tokens": []},
}
(HERE / "folder").mkdir(exist_ok=True)
(HERE / "folder" / "model.safetensors").write_bytes(tiny_model())
for name, content in FOLDER.items():
    (HERE / "folder" / name).write_text(json.dumps(content) + "\n")
(HERE / "folder" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.author }}: {{ m.text }}\n{% endfor %}")
(HERE / "sentencepiece").mkdir(exist_ok=True)
(HERE / "sentencepiece" / "tokenizer.model").write_bytes(b"\n\x05\n\x03<s>")
