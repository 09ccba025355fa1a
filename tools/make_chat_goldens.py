#!/usr/bin/env python3
"""Writes tests/goldens/chat: what transformers' apply_chat_template makes of a grid of conversations, for every family
of chat formats. Needs tokenizers and transformers.

  python3 tools/make_chat_goldens.py [--corpus DIR]

tokenizer.json       a small byte-level BPE in Llama 3's layout, without added tokens: each family adds its own behind it
conversations.jsonl  lists of [role, content]
pieces.json          the same as SentencePiece's converter writes it: characters for symbols, bytes for what has none
families.json        of each family, on one of the two: added tokens, bos and eos, a template, and the ids of every conversation with the
                     generation prompt, as FNV-1a of 64 bits; null where the template raises; with a ! before it where a
                     content spells an added token, which transformers takes for structure and finteam must not

The templates say in few words what the families' own say of conversations without tools.
"""
import argparse
import json
import pathlib
import random
import unicodedata

from jinja2.exceptions import TemplateError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from make_tokenizer_goldens import PATTERN, fnv

ROOT = pathlib.Path(__file__).resolve().parent.parent
ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
             "{% endif %}")
POP = ("{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% set rest = messages[1:] %}"
       "{% else %}{% set rest = messages %}{% endif %}")
CHATML = "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
CHATML_OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
HEADER_TURN = "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>'"
HEADER_OPEN = "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"


def default_system(text):
    """Qwen 1.5's and 2's template."""
    return ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\\n" + text + "<|im_end|>\\n' }}{% endif %}" + CHATML + "{% endfor %}" + CHATML_OPEN)


def dated(set_date):
    """Llama 3.1's and 3.2's."""
    return ("{{ bos_token }}" + set_date + "{% if messages[0]['role'] == 'system' %}"
            "{% set system_message = messages[0]['content'] | trim %}{% set messages = messages[1:] %}"
            "{% else %}{% set system_message = '' %}{% endif %}{{ '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
            "{{ 'Cutting Knowledge Date: December 2023\\n' }}{{ 'Today Date: ' + date_string + '\\n\\n' }}{{ system_message }}"
            "{{ '<|eot_id|>' }}{% for message in messages %}{{ " + HEADER_TURN + " }}{% endfor %}" + HEADER_OPEN)


def instruct(user, assistant, when=None):
    """Mistral's: a user's turn around its content, an assistant's, and when the system message goes into a user's."""
    before, after = user
    plain = "{{ '" + before + "' + message['content'] + '" + after + "' }}"
    if when:
        plain = ("{% if " + when + " and system_message is defined %}{{ '" + before + "' + system_message + '\\n\\n' + "
                 "message['content'] + '" + after + "' }}{% else %}" + plain + "{% endif %}")
    return ((POP if when else "") + "{{ bos_token }}{% for message in " + ("rest" if when else "messages") + " %}" +
            ALTERNATE + "{% if message['role'] == 'user' %}" + plain + "{% elif message['role'] == 'assistant' %}{{ " +
            assistant + " + eos_token }}{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}")


def phi3(when):
    turn = "{{ '<|%s|>\\n' + message['content'] + '<|end|>\\n' }}"
    return ("{% for message in messages %}{% if message['role'] == 'system'" + when + " %}" + turn % "system" +
            "{% elif message['role'] == 'user' %}" + turn % "user" + "{% elif message['role'] == 'assistant' %}" +
            turn % "assistant" + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}")


def phi4(user, assistant, open_):
    return ("{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|im_start|>system<|im_sep|>' + "
            "message['content'] + '<|im_end|>' }}{% elif message['role'] == 'user' %}{{ '<|im_start|>user<|im_sep|>' + "
            "message['content'] + '<|im_end|>" + user + "' }}{% elif message['role'] == 'assistant' %}{{ " + assistant +
            "message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}" + open_)


GEMMA_OPEN = "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
GEMMA_ROLE = "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
THINKING = (
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Your role as an assistant involves thoroughly "
    "exploring questions through a systematic thinking process before providing the final precise and accurate solutions. "
    "This requires engaging in a comprehensive cycle of analysis, summarizing, exploration, reassessment, reflection, "
    "backtracking, and iteration to develop well-considered thinking process. Please structure your response into two main "
    "sections: Thought and Solution using the specified format: <think> Thought section </think> Solution section. In the "
    "Thought section, detail your reasoning process in steps. Each step should include detailed considerations such as "
    "analysing questions, summarizing relevant findings, brainstorming new ideas, verifying the accuracy of the current "
    "steps, refining any errors, and revisiting previous steps. In the Solution section, based on various attempts, "
    "explorations, and reflections from the Thought section, systematically present the final solution that you deem "
    "correct. The Solution section should be logical, accurate, and concise and detail necessary steps needed to reach the "
    "conclusion.\\n\\n")

# name: (added tokens, bos, eos, template)
IM = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
S = ["<unk>", "<s>", "</s>"]
FAMILIES = {
    "chatml": (IM, None, "<|im_end|>", "{% for message in messages %}" + CHATML + "{% endfor %}" + CHATML_OPEN),
    "qwen1.5": (IM, None, "<|im_end|>", default_system("You are a helpful assistant")),
    "qwen2": (IM, None, "<|im_end|>", default_system("You are a helpful assistant.")),
    "qwen2.5": (IM, None, "<|im_end|>", (
        "{% if messages[0]['role'] == 'system' %}{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
        "{% else %}{{ '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}"
        "{% endif %}{% for message in messages %}{% if message['role'] != 'system' or "
        "(message['role'] == 'system' and not loop.first) %}" + CHATML + "{% endif %}{% endfor %}" + CHATML_OPEN)),
    "qwen3": (IM + ["<think>", "</think>"], None, "<|im_end|>", (
        "{% if messages[0]['role'] == 'system' %}{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
        "{% endif %}{% set ns = namespace(last_query_index=0) %}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{% set ns.last_query_index = loop.index0 %}{% endif %}{% endfor %}"
        "{% for message in messages %}{% set content = message['content'] %}{% if message['role'] == 'user' or "
        "(message['role'] == 'system' and not loop.first) %}{{ '<|im_start|>' + message['role'] + '\\n' + content + "
        "'<|im_end|>\\n' }}{% elif message['role'] == 'assistant' %}{% if '</think>' in content %}"
        "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
        "{% if loop.index0 > ns.last_query_index %}{{ raise_exception('ends with an answer') }}"
        "{% else %}{{ '<|im_start|>' + message['role'] + '\\n' + content }}{% endif %}{{ '<|im_end|>\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
        "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
        "{% endif %}")),
    "qwen3-instruct": (IM, None, "<|im_end|>", (
        "{% if tools %}{{ raise_exception('no tools here') }}{% else %}{% if messages[0]['role'] == 'system' %}"
        "{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{% endif %}{% endif %}"
        "{% for message in messages %}{% set content = message['content'] %}{% if message['role'] == 'user' or "
        "(message['role'] == 'system' and not loop.first) %}{{ '<|im_start|>' + message['role'] + '\\n' + content + "
        "'<|im_end|>' + '\\n' }}{% elif message['role'] == 'assistant' %}{{ '<|im_start|>' + message['role'] + '\\n' + content }}"
        "{% if message.tool_calls %}{{ raise_exception('no tools here') }}{% endif %}{{ '<|im_end|>\\n' }}{% endif %}"
        "{% endfor %}" + CHATML_OPEN)),
    "smollm3": (IM + ["<think>", "</think>"], None, "<|im_end|>", (
        "{% set reasoning_mode = '/think' %}{{ '<|im_start|>system\\n' }}{% if messages[0]['role'] == 'system' %}"
        "{% set system_message = messages[0]['content'] %}{% set custom_instructions = system_message.rstrip() %}"
        "{% if '/system_override' in system_message or '/think' in system_message or '/no_think' in system_message %}{{ raise_exception('a command') }}"
        "{% endif %}{% endif %}{% if true %}{{ '## Metadata\\n\\n' }}{{ 'Knowledge Cutoff Date: June 2025\\n' }}"
        "{% set today = strftime_now('%d %B %Y') %}{{ 'Today Date: ' ~ today ~ '\\n' }}"
        "{{ 'Reasoning Mode: ' + reasoning_mode + '\\n\\n' }}{{ '## Custom Instructions\\n\\n' }}"
        "{% if custom_instructions %}{{ custom_instructions + '\\n\\n' }}{% else %}{{ '" + THINKING + "' }}{% endif %}"
        "{% if tools %}{{ '\\n\\n' }}{{ '<|im_end|>\\n' }}{% endif %}{% endif %}{% for message in messages %}"
        "{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|im_start|>user\\n' + content + "
        "'<|im_end|>\\n' }}{% elif message['role'] == 'assistant' %}{{ '<|im_start|>assistant\\n' + content.lstrip('\\n') + "
        "'<|im_end|>\\n' }}{% endif %}{% endfor %}" + CHATML_OPEN)),
    "llama-2": (S, "<s>", "</s>", (
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system_message = messages[0]['content'] %}"
        "{% else %}{% set rest = messages %}{% set system_message = false %}{% endif %}{% for message in rest %}" + ALTERNATE +
        "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
        "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}{% endfor %}")),
    "llama-3": (HEADERS, "<|begin_of_text|>", "<|eot_id|>", (
        "{% for message in messages %}{% set content = " + HEADER_TURN + " %}{% if loop.index0 == 0 %}"
        "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}" + HEADER_OPEN)),
    "llama-3.1": (HEADERS, "<|begin_of_text|>", "<|eot_id|>", dated("{% set date_string = '26 Jul 2024' %}")),
    "llama-3.2": (HEADERS, "<|begin_of_text|>", "<|eot_id|>", dated(
        "{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
        "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}")),
    "mistral-v1": (S, "<s>", "</s>", instruct((" [INST] ", " [/INST]"), "' ' + message['content']", "loop.first")),
    "mistral-v1-early": (S, "<s>", "</s>", instruct(("[INST] ", " [/INST]"), "message['content']")),
    "mistral-v3": (S + ["[INST]", "[/INST]"], "<s>", "</s>",
                   instruct(("[INST] ", "[/INST]"), "' ' + message['content'] | trim", "loop.last")),
    "mistral-v3-unstripped": (S + ["[INST]", "[/INST]"], "<s>", "</s>",
                              instruct(("[INST] ", "[/INST]"), "' ' + message['content']", "loop.last")),
    "mistral-v3-tekken": (S + ["[INST]", "[/INST]"], "<s>", "</s>",
                          instruct(("[INST]", "[/INST]"), "message['content']", "loop.last")),
    "phi-3": (["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], None, "<|endoftext|>", phi3("")),
    "phi-3.5": (["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], None, "<|endoftext|>",
                phi3(" and message['content']")),
    "phi-4": (IM + ["<|im_sep|>"], None, "<|im_end|>",
              phi4("", "'<|im_start|>assistant<|im_sep|>' + ",
                   "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}")),
    "phi-4-early": (IM + ["<|im_sep|>"], None, "<|im_end|>", phi4("<|im_start|>assistant<|im_sep|>", "", "")),
    "gemma-2": (["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<eos>", (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for message in messages %}" + ALTERNATE + GEMMA_ROLE + "{{ '<start_of_turn>' + role + '\\n' + "
        "message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}" + GEMMA_OPEN)),
    "gemma-3": (["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<eos>", (
        "{{ bos_token }}{% set first_user_prefix = '' %}{% set rest = messages %}{% if messages[0]['role'] == 'system' %}"
        "{% set first_user_prefix = messages[0]['content'] + '\\n\\n' %}{% set rest = messages[1:] %}{% endif %}"
        "{% for message in rest %}" + ALTERNATE + GEMMA_ROLE + "{{ '<start_of_turn>' + role + '\\n' + "
        "(first_user_prefix if loop.first else '') }}{{ message['content'] | trim }}{{ '<end_of_turn>\\n' }}{% endfor %}" +
        GEMMA_OPEN)),
    "olmo-2": (["<|endoftext|>", "<|pad|>"], "<|endoftext|>", "<|endoftext|>", (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\\n' + message['content'] + "
        "'\\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + '\\n' }}{% else %}"
        "{% if not loop.last %}{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}{% else %}"
        "{{ '<|assistant|>\\n' + message['content'] + eos_token }}{% endif %}{% endif %}"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}")),
    "gpt-oss": (["<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>"], None, "<|return|>", (
        "{% set model_identity = 'You are ChatGPT, a large language model trained by OpenAI.' %}"
        "{% set reasoning_effort = 'medium' %}{{ '<|start|>system<|message|>' + model_identity + '\\n' }}"
        "{{ 'Knowledge cutoff: 2024-06\\n' }}{{ 'Current date: ' + strftime_now('%Y-%m-%d') + '\\n\\n' }}"
        "{{ 'Reasoning: ' + reasoning_effort + '\\n\\n' }}"
        "{{ '# Valid channels: analysis, commentary, final. Channel must be included for every message.' }}{{ '<|end|>' }}"
        "{% set rest = messages %}{% set developer_message = '' %}{% if messages[0]['role'] == 'system' %}"
        "{% set developer_message = messages[0]['content'] %}{% set rest = messages[1:] %}{% endif %}"
        "{% if developer_message %}{{ '<|start|>developer<|message|>' }}{{ '# Instructions\\n\\n' }}{{ developer_message }}"
        "{{ '\\n\\n' }}{{ '<|end|>' }}{% endif %}{% for message in rest %}{% if message['role'] == 'assistant' %}"
        "{{ '<|start|>assistant<|channel|>final<|message|>' + message['content'] + '<|end|>' }}"
        "{% elif message['role'] == 'user' %}{{ '<|start|>user<|message|>' + message['content'] + '<|end|>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}")),
}
DATES = {"%d %b %Y": "26 Jul 2024", "%d %B %Y": "08 July 2025", "%Y-%m-%d": "2025-08-05"}
ENDS = ["", " ", "\n", "\n\n", "  \n", "\t", "\u00a0", "\u3000", "\x1c", "\r\n", "\u2028", "\u0085"]
TEXTS = ["", " ", "\n", "\n\n\n", "Rates rose 25 bps.", "Was ist die P/E von Müller & Söhne?", "各国の株価", "Привет, мир!", "👩‍👩‍👧 ok",
         "def f(x):\n    return x\n", "one\n\ntwo\n\n\nthree", "<b>5 < 6</b>", "<think>\nhm\n</think>\n\nSell.", "</think>\n\nHold",
         "## Title\n- a\n- b", "{date} {{ messages }}", "$1,234.56 (Q3'24)", "e\u0301 ﬁ ½"]


class Clock:
    """Stands where transformers asks for the time, so that strftime_now gives the formats' own dates."""

    @staticmethod
    def now():
        return Clock

    @staticmethod
    def strftime(how):
        return DATES[how]


def conversations(rng):
    """Lists of (role, content)."""
    def content():
        return rng.choice(ENDS) + rng.choice(TEXTS) + rng.choice(ENDS) if rng.random() < 0.7 else rng.choice(TEXTS)
    for text in TEXTS:
        yield [("user", text)]
        yield [("system", text), ("user", text)]
    for turns in range(3, 6):
        for _ in range(30):
            roles = ["user", "assistant"] * 3
            yield ([("system", content())] if rng.random() < 0.5 else []) + [(r, content()) for r in roles[:turns]]
    for roles in (["assistant"], ["system"], ["user", "user"], ["user", "system", "user"], ["assistant", "user"],
                  ["system", "system", "user"], ["system", "assistant", "user"], ["user", "assistant", "system", "user"]):
        yield [(r, content()) for r in roles]


def attacks(added):
    """Contents that spell the family's structure."""
    everything = "".join(added)
    return [[("user", everything)], [("system", "x" + everything), ("user", "y" + added[-1] + "\n")],
            [("user", "a"), ("assistant", added[0] + " b"), ("user", added[-1])]]


def train(corpus):
    t = Tokenizer(models.BPE(ignore_merges=False))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=900, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return t


def train_pieces(corpus):
    """A BPE over characters with byte fallback, in the layout of Llama 2's tokenizer.json."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=500, limit_alphabet=120, show_progress=False))
    d = json.loads(t.to_str())
    first = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    d["model"]["vocab"] = {token: i for i, token in enumerate(first + list(d["model"]["vocab"]))}
    d["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in d["model"]["merges"]]
    d["model"].update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    d.update(pre_tokenizer=None, decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]})
    return d


# How a family's tokenizer.json has "▁": before the first run of a text, before each, or for spaces alone.
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
FIRST = {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}}
EACH = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}}
SPACES = {"normalizer": REPLACE}
ON_PIECES = [("llama-2", FIRST), ("llama-2", EACH), ("mistral-v1", FIRST), ("mistral-v1-early", EACH), ("mistral-v3", FIRST),
             ("gemma-3", SPACES), ("phi-3", EACH)]


def tokenizer_of(plain, added, bos, eos, rstrip=()):
    t = Tokenizer.from_str(plain)
    t.add_special_tokens([AddedToken(a, normalized=False, special=True, rstrip=a in rstrip) for a in added])
    size = t.get_vocab_size()
    fast = PreTrainedTokenizerFast(tokenizer_object=t, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False)
    assert len(fast) == size
    return fast


def ids_of(fast, template, conversation):
    messages = [{"role": r, "content": c} for r, c in conversation]
    try:
        return list(fast.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, return_dict=False))
    except TemplateError:
        return None


def structure(fast, template, conversation, added):
    """How many special tokens a conversation has whose contents spell none."""
    def harmless(c):
        for a in sorted(added, key=len, reverse=True):
            c = c.replace(a, "x")
        return c
    ids = ids_of(fast, template, [(r, harmless(c)) for r, c in conversation])
    return None if ids is None else sum(i in fast.all_special_ids or i in fast.added_tokens_decoder for i in ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, default=ROOT.parent / "shared/data/corpora")
    args = parser.parse_args()
    out = ROOT / "tests/goldens/chat"
    out.mkdir(parents=True, exist_ok=True)
    chat_template_utils.datetime = Clock
    rng = random.Random(5)
    corpus = [(args.corpus / f"{role}.txt").read_text()[:60_000] for role in ("macro", "micro", "quant")]
    corpus += [template for *_, template in FAMILIES.values()] * 3 + ["\n", "\n\n", " \n\n", "user\n\n", "assistant\n"] * 50
    plain = train("".join(c for c in text if unicodedata.category(c) != "Cn") for text in corpus).to_str()
    d = json.loads(plain)
    d["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in d["model"]["merges"]]
    (out / "tokenizer.json").write_text(json.dumps(d, ensure_ascii=False, separators=(",", ":")) + "\n")

    grid = list(conversations(rng))
    (out / "conversations.jsonl").write_text("".join(json.dumps(c, ensure_ascii=False) + "\n" for c in grid))
    families = []
    pieces = train_pieces("".join(c for c in text if unicodedata.category(c) != "Cn") for text in corpus)
    (out / "pieces.json").write_text(json.dumps(pieces, ensure_ascii=False, separators=(",", ":")) + "\n")
    cases = [(name, plain, {}) for name in FAMILIES] + [(name, json.dumps({**pieces, **how}), how) for name, how in ON_PIECES]
    for name, tokenizer, how in cases:
        added, bos, eos, template = FAMILIES[name]
        if how and added[:3] != S:
            added = S + added
        rstrip = [a for a in added if name == "phi-3" and how and a.startswith("<|")]
        fast = tokenizer_of(tokenizer, added, bos, eos, rstrip)

        def golden(conversation):
            ids = ids_of(fast, template, conversation)
            if ids is None:
                return None
            own = sum(i in fast.added_tokens_decoder for i in ids) == structure(fast, template, conversation, added)
            return ("" if own else "!") + fnv(ids)
        families.append({"name": name, "tokenizer": "pieces.json" if how else "tokenizer.json", "set": how, "rstrip": rstrip,
                         "added": added, "bos": bos, "eos": eos, "template": template,
                         "ids": [golden(c) for c in grid],
                         "attacks": [{"messages": c, "ids": golden(c)} for c in attacks(added)]})
    (out / "families.json").write_text("[\n" + ",\n".join(json.dumps(f, ensure_ascii=False) for f in families) + "\n]\n")
    print(len(grid), "conversations;", *(f"{p.name} {p.stat().st_size:,} bytes" for p in sorted(out.iterdir())))
    for f in families:
        print(f["name"], sum(i is None for i in f["ids"]), "raised,", sum(i is not None and i[0] == "!" for i in f["ids"]), "differ")


if __name__ == "__main__":
    main()
