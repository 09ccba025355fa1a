#!/usr/bin/env python3
"""How fast is the peer on the same GPU: transformers with torch.compile and CUDA graphs, over the shapes of bench_gpu?

usage: gpu_peer.py [OPTION]…    (./bench/run gpu --peer runs it after bench_gpu, with the same options)

A Llama of random weights in bf16, made on the device: nothing is downloaded. Rows: the next token after a context in a
static cache; a prompt of 2,048 tokens (into a static cache, or with keys and values as results: the faster counts); a
token of each of three separate models in turn. 8-bit and 4-bit weights are torchao's, weight-only, where torchao is
there; else the bf16 row stands for them. Not here: three adapters on one base, which transformers alone cannot step
together. What is timed is from the host's first word to the first logit in its hands (bench_gpu: to the token). Compiled
logits are checked against the same weights in eager mode. Rows are kept in --json's file as soon as they are there, and
rows of finteam there get their ratio_to_peer; started again, what is missing is measured.
Exit: 0, 1: a row is missing or wrong, 2: torch, transformers, the device or an option is not there.
"""
import argparse
import functools
import gc
import importlib.metadata
import math
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer_rows  # noqa: E402

LEAST_SAMPLES, WARM_STEPS = 7, 4  # bench_gpu's
PROMPT = 2048
# A value is rounded to bf16, 2^-9 of itself, some five times a layer; eager and compiled steps round at other places.
# A cache that is a token off is wrong by a third.
ALLOWED = 0.05


class Missing(Exception):
    """What is not there."""


def say(what):
    print(what, file=sys.stderr, flush=True)


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def libraries(device):
    """torch and transformers."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    try:
        import torch
        import transformers
    except ImportError as e:
        raise Missing(f"{e.name or e} is not there for {sys.executable}: tools/bring_dependencies --peer DIR "
                      "brings it, --prefix DIR uses it") from e
    if device != "cpu" and not torch.cuda.is_available():
        raise Missing(f"torch {torch.__version__} finds no GPU (--device cpu is for trying this script)")
    if device != "cpu" and int(device) >= torch.cuda.device_count():
        raise Missing(f"device {device}: torch finds {torch.cuda.device_count()}")
    layer = transformers.StaticCache(config=transformers.LlamaConfig(num_hidden_layers=1), max_cache_len=1).layers[0]
    if not hasattr(layer, "cumulative_length"):
        raise Missing(f"transformers {transformers.__version__} has no static cache that counts its tokens on the "
                      "device: version 5 has")
    torch.set_grad_enabled(False)
    return torch, transformers


class Device:
    """Where it runs: "cpu", or a GPU's number."""

    def __init__(self, torch, name):
        self.torch, self.is_gpu = torch, name != "cpu"
        self.where = torch.device(f"cuda:{name}" if self.is_gpu else "cpu")
        self.name = "cpu"  # else as bench_gpu says it
        if self.is_gpu:
            torch.cuda.set_device(self.where)
            self.name = f"{torch.cuda.get_device_name(self.where)}, " + ".".join(
                map(str, torch.cuda.get_device_capability(self.where)))

    def wait(self):
        if self.is_gpu:
            self.torch.cuda.synchronize(self.where)

    def forget(self):
        """Compiled steps, and memory that nobody holds."""
        self.torch.compiler.reset()
        gc.collect()
        if self.is_gpu:
            self.torch.cuda.empty_cache()

    @staticmethod
    def counters():
        from torch._dynamo.utils import counters
        return counters

    def seconds_of(self, repeats, f):
        """Of one f(), the median, after one that does not count."""
        every = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            f()
            self.wait()
            every.append(time.perf_counter() - start)
        return statistics.median(every[1:])

    def limits(self):
        """Copies within the memory in GB/s (read + written), and products of bf16 in TFLOP/s."""
        torch, (size, n) = self.torch, (1 << 30, 8192) if self.is_gpu else (1 << 22, 256)
        copies, products = 8, 4
        a, b = (torch.empty(size, dtype=torch.uint8, device=self.where).fill_(i) for i in range(2))
        gbps = 2 * copies * size / self.seconds_of(20, lambda: [a.copy_(b) for _ in range(copies)]) / 1e9
        x, y = (torch.randn(n, n, dtype=torch.bfloat16, device=self.where) for _ in range(2))
        z = torch.empty_like(x)
        seconds = self.seconds_of(10, lambda: [torch.mm(x, y.T, out=z) for _ in range(products)])
        return {"copy_gbps": gbps, "bf16_tflops": 2 * products * n**3 / seconds / 1e12}


class Step:
    """Compiled models, one after the other, each with its tokens and, perhaps, its static cache.

    calls: functions of (ids, cache) that return [1, 1, v] logits first; position: tokens that each cache holds before.
    """

    def __init__(self, device, calls, ids, caches, position=0):
        self.device, self.calls, self.ids, self.caches, self.position = device, calls, ids, caches, position
        self.results = []

    def rewind(self):
        """As if the step had not been yet; its time does not count."""
        for cache in filter(None, self.caches):
            for layer in cache.layers:
                if layer.is_initialized:
                    layer.cumulative_length.fill_(self.position)
        self.device.wait()

    def record(self):
        self.device.torch.compiler.cudagraph_mark_step_begin()
        self.results = [call(self.ids, cache) for call, cache in zip(self.calls, self.caches)]

    def finish(self):
        return self.results[-1][0][0, 0, 0].item()

    def logits(self):
        """Of all models, in float on the host. [models, v]"""
        self.rewind()
        self.record()
        self.finish()
        return self.device.torch.stack([result[0].detach()[0, 0].float().cpu() for result in self.results])


def mean_error(found, expected):
    """The root mean square of the difference over that of `expected`; infinite if a number is not finite."""
    error = ((found - expected).double().square().mean() / expected.double().square().mean()).sqrt().item()
    return error if math.isfinite(error) else math.inf


class Peer:
    """The run: options, device, limits, file."""

    def __init__(self, options):
        self.options = options
        self.torch, self.transformers = libraries(options.device)
        self.device = Device(self.torch, options.device)
        self.shape = dict(peer_rows.SHAPES[options.shape])
        self.shape["layers"] = options.layers or self.shape["layers"]
        self.results = peer_rows.Results(options.json, self.device.name)
        self.ok = True
        if self.device.is_gpu:  # as torchao asks for its own weights: the others have the same
            import torch._inductor.config as inductor
            inductor.coordinate_descent_tuning = inductor.coordinate_descent_check_all_directions = True
        self.limits = self.device.limits()
        say(f"{self.device.name}: copies {self.limits['copy_gbps']:.0f} GB/s, bf16 products "
            f"{self.limits['bf16_tflops']:.0f} TFLOP/s")

    def versions(self, weights):
        packages = ("transformers", "torch") + (("torchao",) if weights != "bf16" else ())
        return ", ".join(f"{package} {version(package)}" for package in packages)

    # --- models and steps ---

    def model(self, weights):
        c = self.shape
        config = self.transformers.LlamaConfig(
            hidden_size=c["d"], num_hidden_layers=c["layers"], num_attention_heads=c["h"], num_key_value_heads=c["g"],
            head_dim=c["e"], intermediate_size=c["f"], vocab_size=c["v"], tie_word_embeddings=c["tied"],
            rms_norm_eps=1e-5, max_position_embeddings=16384,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
        with self.device.where:
            model = self.transformers.AutoModelForCausalLM.from_config(config, dtype=self.torch.bfloat16,
                                                                       attn_implementation="sdpa").eval()
        if weights != "bf16":
            from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
            quantize_(model, Int8WeightOnlyConfig() if weights == "int8" else
                      Int4WeightOnlyConfig(group_size=128, int4_packing_format="tile_packed_to_4d"))
        return model

    def ids(self, count):
        """bench_gpu's tokens. [1, count]"""
        return ((17 * self.torch.arange(count) + 5) % self.shape["v"])[None].to(self.device.where)

    def static_cache(self, model, ids, tokens):
        """Of so many tokens, after `ids`; a multiple of 8 has a mask that needs no copy."""
        cache = self.transformers.StaticCache(config=model.config, max_cache_len=-(-tokens // 8) * 8)
        model(ids, past_key_values=cache, logits_to_keep=1)  # not compiled: so its memory never moves
        return cache

    def eager(self, model, ids):
        """The last token's logits, without a cache."""
        return model(ids, use_cache=False, logits_to_keep=1).logits[0, 0].float().cpu()

    def compiled(self, f):
        if self.options.mode == "none":
            return f
        return self.torch.compile(f, mode=self.options.mode, fullgraph=True, dynamic=False)

    def bytes_of(self, model, tokens):
        """That a step of one token must read: matrices as they are stored, and keys and values of so many tokens."""
        def stored(tensor):
            if hasattr(tensor, "__tensor_flatten__"):
                return sum(stored(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
            return tensor.numel() * tensor.element_size()

        read = {id(p): p for name, module in model.named_modules() if not name.endswith("embed_tokens")
                for p in module.parameters(recurse=False)}
        return sum(map(stored, read.values())) + peer_rows.cache_bytes(self.shape, tokens)

    # --- the questions ---

    def decode(self, name, weights, count=1):
        """A token of each of `count` models."""
        tokens = self.options.context + 1
        row = {"name": name, "weights": weights, "rows": count, "context": tokens - 1,
               "part": "decode" if name == "decode" else "team"}
        if not self.wants(row):
            return

        def call(model, token, cache):
            return (model(token, past_key_values=cache, logits_to_keep=1).logits,)

        ids = self.ids(tokens)
        models = [self.model(weights) for _ in range(count)]
        caches = [self.static_cache(model, ids[:, :-1], tokens) for model in models]
        expected = [self.eager(model, ids) for model in models]
        calls = [self.compiled(functools.partial(call, model)) for model in models]
        row |= {"tokens": count, "bytes": sum(self.bytes_of(model, tokens) for model in models),
                "flops": count * peer_rows.step_flops(self.shape, 1, tokens, 1), "how": "static cache"}
        self.keep(self.measure(Step(self.device, calls, ids[:, -1:], caches, tokens - 1), expected, row))

    def prefill(self, name, weights):
        """A prompt, in two ways."""
        row = {"name": name, "weights": weights, "rows": PROMPT, "part": "prefill"}
        if not self.wants(row):
            return

        def into_cache(ids, cache):
            return (model(ids, past_key_values=cache, logits_to_keep=1).logits,)

        def with_results(ids, _):
            out = model(ids, use_cache=True, logits_to_keep=1)
            return out.logits, [(layer.keys, layer.values) for layer in out.past_key_values.layers]

        model, ids = self.model(weights), self.ids(PROMPT)
        cache, expected = self.static_cache(model, ids, PROMPT), [self.eager(model, ids)]
        row |= {"tokens": PROMPT, "bytes": 0,
                "flops": peer_rows.step_flops(self.shape, PROMPT, PROMPT * (PROMPT + 1) / 2, 1)}
        both = []
        ways = (("static cache", into_cache, cache), ("keys and values as results", with_results, None))
        for how, call, kept in ways:
            step = Step(self.device, [self.compiled(call)], ids, [kept])
            both.append(self.attempt(how, lambda: self.measure(step, expected, row | {"how": how})))
        every = [found for found in both if found is not None]
        self.keep(min(every, key=lambda found: (not peer_rows.is_right(found), found["seconds_per_step"])))

    # --- rows ---

    def wants(self, row):
        new = row | {"shape": self.options.shape, "layers": self.shape["layers"], "peer": self.versions(row["weights"])}
        return self.options.again or not peer_rows.has_row(self.results.rows, new)

    def verdict(self, step, expected):
        found = step.logits()
        error = mean_error(found, self.torch.stack(expected))
        same = all(self.torch.equal(step.logits(), found) for _ in range(3))
        return {"right": same and error <= ALLOWED, "error": error if math.isfinite(error) else "not finite",
                "allowed": ALLOWED, "same_bits": same,
                "against": "the same weights in eager mode without a cache, root mean square; again the same bits"}

    def measure(self, step, expected, work):
        """A row: checks a step, then times it."""
        self.device.counters().clear()
        verdict = self.verdict(step, expected)
        whole, recording, begin, i = [], [], time.perf_counter(), 0
        while len(whole) < LEAST_SAMPLES or time.perf_counter() - begin < self.options.seconds:
            step.rewind()
            start = time.perf_counter()
            step.record()
            recorded = time.perf_counter()
            step.finish()
            end = time.perf_counter()
            if i >= WARM_STEPS:
                recording.append(recorded - start)
                whole.append(end - start)
            i += 1
        row = self.row(work, statistics.median(whole)) | {
            "verdict": verdict, "seconds_least": min(whole), "seconds_most": max(whole),
            "seconds_recording": statistics.median(recording), "samples": len(whole)}
        say(f"  {row['name']}, {row['weights']}, rows {row['rows']}, {row['how']}: "
            f"{1e3 * row['seconds_per_step']:.4f} ms, {row['fraction']:.3f} of {row['limit']}, "
            f"{row['tflops']:.1f} TFLOP/s, {'right' if verdict['right'] else 'WRONG'}")
        return row

    def row(self, work, seconds):
        """The fields of bench_gpu's rows, and what the peer is."""
        size, flops, by_bytes = work["bytes"], work["flops"], work["bytes"] > 0
        gbps, tflops = size / seconds / 1e9, flops / seconds / 1e12
        named = {field: work[field] for field in work if field not in ("tokens", "bytes", "flops")}
        return named | self.limits | {
            "peer": self.versions(work["weights"]), "compiled": self.options.mode, "graphs": self.has_graphs(),
            "shape": self.options.shape, "layers": self.shape["layers"], "commit": self.options.commit, "cache": "bf16",
            "seconds_per_step": seconds, "tokens_per_s": work["tokens"] / seconds, "bytes_per_step": size,
            "flops_per_step": flops, "gbps": gbps, "tflops": tflops, "limit": "copy" if by_bytes else "arithmetic",
            "fraction": gbps / self.limits["copy_gbps"] if by_bytes else tflops / self.limits["bf16_tflops"]}

    def has_graphs(self):
        """Whether torch says that compiled steps became CUDA graphs."""
        with_graphs = self.device.is_gpu and self.options.mode in ("reduce-overhead", "max-autotune")
        return with_graphs and self.device.counters()["inductor"]["cudagraph_skips"] == 0

    def keep(self, row):
        self.ok = self.ok and peer_rows.is_right(row)
        self.results.add(row)

    def attempt(self, what, f):
        """f(), or None where it cannot be had, which is said."""
        try:
            return f()
        except Exception as e:  # whatever a compiler says
            say(f"  {what}: {type(e).__name__}: {str(e)[:600]}")
            return None

    def ask(self, question, name, weights, *more):
        """A row that cannot be had does not keep others from being asked; of bf16, it is an error."""
        if self.attempt(f"{name}, {weights}", lambda: question(name, weights, *more) or True) is None:
            self.ok = self.ok and weights != "bf16"
        self.device.forget()

    def run(self):
        o = self.options
        weights = [w for w in o.weights if w == "bf16" or (w in ("int8", "int4") and version("torchao"))]
        if len(weights) < len(o.weights):
            without = ", ".join(w for w in o.weights if w not in weights)
            say(f"of {without} the peer has no row (torchao: {version('torchao')}): its bf16 row stands for it")
        if "decode" in o.part:
            for w in weights:
                self.ask(self.decode, "decode", w)
        if "prefill" in o.part:
            for w in weights:
                self.ask(self.prefill, "prefill", w)
        if "team" in o.part:
            self.ask(self.decode, "one expert", "bf16")
            self.ask(self.decode, "three experts", "bf16", 3)
        self.results.write()
        print(peer_rows.table(self.results.rows, o.shape))
        return 0 if self.ok else 1


def parsed(arguments):
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)

    def some_of(*allowed):
        def check(text):
            words = text.split(",")
            if wrong := [word for word in words if word not in allowed]:
                raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(allowed)}")
            return words
        return check

    parser.add_argument("--part", type=some_of("products", "attention", "decode", "prefill", "team"),
                        default=["decode", "prefill", "team"], help="some of: decode, prefill, team (all)")
    parser.add_argument("--json", help="a file for the results, which may have some")
    parser.add_argument("--shape", choices=sorted(peer_rows.SHAPES), default="llama-3-8b")
    parser.add_argument("--weights", type=some_of("bf16", "int8", "int4", "int4_zero"),
                        default=["bf16", "int8", "int4"])
    parser.add_argument("--layers", type=int, default=0, help="of the model (the shape's own)")
    parser.add_argument("--context", type=int, default=512, help="decode, team: tokens before")
    parser.add_argument("--seconds", type=float, default=1, help="at least so long for each row")
    parser.add_argument("--device", default="0", help="a GPU's number, or cpu, to try this script")
    parser.add_argument("--mode", choices=("none", "default", "reduce-overhead", "max-autotune"),
                        default="reduce-overhead", help="of torch.compile (reduce-overhead: with CUDA graphs)")
    parser.add_argument("--again", action="store_true", help="rows that the file has, too")
    parser.add_argument("--commit", default="unknown", help="for the results")
    parser.add_argument("--threads", help="bench_gpu's")
    options = parser.parse_args(arguments)
    if options.device != "cpu" and not options.device.isdigit():
        parser.error(f"--device: expected a number or cpu, found {options.device}")
    return options


def main(arguments):
    try:
        return Peer(parsed(arguments)).run()
    except (Missing, ValueError) as e:
        say(f"gpu_peer: {e}")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
