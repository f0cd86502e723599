#!/usr/bin/env python3
"""Golden models: the engine against the NumPy reference, the reference against llama.cpp where this machine has it.

    test_golden.py [--only NAME[,NAME...]] [--keep DIR] [--self-check]

Parts, each printed with its numbers:
  self    the reference agrees with itself (f32 / f64, prefix / whole), rounding does not choose between experts, and every weight
          and key of a model moves its logits
  peer    reference against llama.cpp (peer_logits.py says how it is found)
  engine  `dil eval logits` on every kernel level against the reference: F32 models to 1e-4, every tensor type with f32
          activations and with their int8 rounding
          (among them prompts of more than 512 tokens: attention then merges partial results)
  same    bit-identical logits for 1, 2, 3 threads and for every way of cutting the prompt into batches, on every level
When an F32 model fails, shortened models tell which part of which layer differs first.
Environment: DIL_SOURCE_DIR, DIL_BINARY, DIL_PEER_LOGITS. Ends with 77 when numpy or gguf is missing, or no command to test.
"""
import argparse
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(SOURCE, "tests", "golden"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # tiny matrices: threads only cost
try:
    import numpy as np
    import make_models
    import peer_logits
    import reference
except ImportError as missing:
    print(f"skipped: {missing} (pip install numpy gguf)")
    sys.exit(77)

BINARY = os.environ.get("DIL_BINARY", "")
F32_TOLERANCE = 1e-4   # max |difference| of logits of order 1, f32 weights and f32 KV
# The same with f16 KV on both sides: one K or V may round the other way, on bf16 levels also a weight of attention, eight times as far.
F16_KV_TOLERANCE, BF16_KV_TOLERANCE = 1e-2, 5e-2
FEW_BITS_TOLERANCE = {"q8_0": 6e-2, "q4_0": 6e-1}  # relative rms difference from f32 KV of the middle row; see part_few_bits
PEER_TOLERANCE = 1e-3
ROUTER_GAP = 1e-4      # no token stands between two experts: rounding must not decide which one it takes
PEER_GELU_TOLERANCE = 1e-2  # llama.cpp's CPU GELU goes through a table of f16, whose rounding Gemma's logits carry; built
                            # without GGML_GELU_FP16 it agrees with the reference to 2e-5
# Deviation of (engine - reference) over the logits' deviation, for the other types. Activations round to int8 on both sides, and
# a value on the edge between two integers may fall the other way, which moves all later layers and tokens: the prompt's best row
# shows that the arithmetic is the same, the whole that nothing is grossly wrong. One that falls in the first token moves all rows:
# then the prompt is tried again without it. With f32 activations (--exact) nothing can fall.
ROW_TOLERANCE, WHOLE_TOLERANCE, EXACT_TOLERANCE, TRIES = 1e-4, 3e-2, 1e-5, 4
BF16_LEVELS = ("avx512_bf16",)  # F16 and BF16 weights and their activations round to bf16 there, which may tip like int8
KEYS_WITHOUT_EFFECT = {"attention.sliding_window": ("llama", "phi3")}  # as in llama.cpp: the window in the file is not applied


class Report:
    """Prints lines and counts failures."""

    def __init__(self):
        self.n_checks, self.failures = 0, []

    def check(self, ok, part, name, text):
        self.n_checks += 1
        print(f"{'ok  ' if ok else 'FAIL'} {part:7}{name:26} {text}", flush=True)
        if not ok:
            self.failures.append(f"{part} {name}")
        return ok


# ---- the command --------------------------------------------------------------------------------------------------------

def engine_exists():
    if not BINARY or not os.access(BINARY, os.X_OK):
        return False
    done = subprocess.run([BINARY, "eval", "logits", "--help"], capture_output=True, text=True)
    return done.returncode == 0 and "--tokens" in done.stdout + done.stderr


def engine_logits(spec, path, tokens, *options):
    """float32 [n_tokens, n_vocab] as `dil eval logits` writes it, with the context the model was made for."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.npy")
        command = [BINARY, "eval", "logits", "-m", path, "--tokens", ",".join(map(str, tokens)), "-o", out,
                   "-c", str(spec.n_ctx_train), "--no-pack-cache", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[1:3])} {os.path.basename(path)} {' '.join(options)}: "
                               f"exit {done.returncode}: {done.stderr.strip()[-400:]}")
        return np.load(out)


F32_KV = ("-ctk", "f32", "-ctv", "f32")
LEVELS = []


def cpu_levels():
    """The kernel levels this machine can run; asked once, with the plainest model, so that no other one can hide a level."""
    if not LEVELS:
        LEVELS.append("scalar")  # must work everywhere
        spec = make_models.MODELS["llama"]
        with tempfile.TemporaryDirectory() as folder:
            path = make_models.write_model(spec, os.path.join(folder, "llama.gguf"))
            for level in ("avx2", "avx512", "avx512_bf16"):
                try:
                    engine_logits(spec, path, [1], "--cpu", level)
                    LEVELS.append(level)
                except RuntimeError as error:
                    print(f"       {level} is not tested: {error}")
    return LEVELS


# ---- parts --------------------------------------------------------------------------------------------------------------

def max_diff(a, b):
    return float(np.abs(a.astype(np.float64) - b).max()) if a.shape == b.shape else float("inf")


def relative_rms(a, b):
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)) / b.std()) if a.shape == b.shape else float("inf")


def best_row(a, b):
    """The smallest relative rms difference that a token's logits have."""
    return min(relative_rms(a[i], b[i]) for i in range(len(b))) if a.shape == b.shape else float("inf")


def median_row(a, b):
    """The same of the row in the middle: a token that takes another expert does not count."""
    return float(np.median([relative_rms(a[i], b[i]) for i in range(len(b))])) if a.shape == b.shape else float("inf")


def part_self(report, spec, path):
    tokens = make_models.prompt(spec)
    model = reference.Model(path)
    steps = reference.Pass(model, tokens).run()
    whole = steps["logits"]
    prefix = reference.Pass(model, tokens[:7]).run()["logits"]
    single = reference.forward(path, tokens, np.float32)["logits"]
    causal, rounding = max_diff(prefix, whole[:7]), max_diff(single, whole)
    report.check(causal < 1e-9 and rounding < 5e-5 and 0.1 < whole.std() < 5, "self", spec.name,
                 f"prefix {causal:.1e}, f32 against f64 {rounding:.1e}, deviation of logits {whole.std():.2f}")
    if spec.n_expert:
        part_routing(report, spec, steps)


def part_routing(report, spec, steps):
    """Rounding does not choose the experts, and every expert is chosen by some token."""
    gap = min(float(value.min()) for name, value in steps.items() if name.endswith(".router_gap"))
    idle = [f"{name[:-8]} {sorted(set(range(spec.n_expert)) - set(value.flat))}" for name, value in steps.items()
            if name.endswith(".experts") and len(np.unique(value)) < spec.n_expert]
    report.check(gap > ROUTER_GAP and not idle, "self", spec.name, f"smallest distance between experts {gap:.1e}" +
                 ("; never chosen: " + ", ".join(idle) if idle else ""))


def another(name, value):
    """A valid value that is not this one."""
    if name.startswith("expert_") and type(value) is int:
        return value // 2 if value > 1 else 2
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return value[::-1]
    return 300 - value if isinstance(value, int) else value * 0.8  # windows and contexts: from small to large and back


def part_sensitivity(report, spec, path):
    """Every tensor and every architecture key changes the logits: the models can show an error in any of them."""
    tokens = make_models.prompt(spec)
    model = reference.Model(path)
    whole = reference.Pass(model, tokens).run()["logits"]
    blind = []
    for name in [n for n in model.tensors if not n.startswith("rope_factors")]:
        saved = model.tensors[name]
        if "exp_probs_b" in name:  # only chooses: each expert gets another's
            model.tensors[name] = np.roll(saved, 1)
        else:
            model.tensors[name] = saved * np.where(np.arange(saved.shape[-1]) % 3 == 0, 1.3, 1.0)
        if max_diff(reference.Pass(model, tokens).run()["logits"], whole) < 3e-3:
            blind.append(name)
        model.tensors[name] = saved
    for name, value in spec.varied.items():
        if isinstance(value, str):
            continue  # the kind of RoPE scaling: each kind has its own models
        make_models.write_model(spec, path + ".changed", {name: another(name, value)})
        other = reference.forward(path + ".changed", tokens)["logits"]
        silent = spec.arch in KEYS_WITHOUT_EFFECT.get(name, ())
        if (max_diff(other, whole) < 1e-3) != silent:
            blind.append(name)
    report.check(not blind, "self", spec.name, "every tensor and key matters" if not blind else "no effect: " + ", ".join(blind))


def part_peer(report, spec, path, peer):
    tokens = make_models.prompt(spec)
    got = peer(path, tokens, spec.n_ctx_train, "f32")
    diff, tolerance = max_diff(got, reference.forward(path, tokens)["logits"]), PEER_TOLERANCE
    if diff > tolerance and spec.arch.startswith("gemma"):
        diff, tolerance = max_diff(got, reference.forward(path, tokens, gelu="f16")["logits"]), PEER_GELU_TOLERANCE
    report.check(diff <= tolerance, "peer", spec.name, f"max |diff| {diff:.1e}")


def part_engine_f32(report, spec, path, folder):
    tokens = make_models.prompt(spec)
    want = reference.forward(path, tokens)["logits"]
    for level in cpu_levels():
        diff = max_diff(engine_logits(spec, path, tokens, *F32_KV, "--cpu", level), want)
        if not report.check(diff <= F32_TOLERANCE, "engine", spec.name, f"{level}: max |diff| {diff:.1e}"):
            locate(spec, folder, tokens, level)
            return
    for level in cpu_levels()[-2:]:
        rounds = level in BF16_LEVELS
        want = reference.forward(path, tokens, kv="f16", halves="bf16" if rounds else "f32")["logits"]
        diff = max_diff(engine_logits(spec, path, tokens, "-ctk", "f16", "-ctv", "f16", "--cpu", level), want)
        report.check(diff <= (BF16_KV_TOLERANCE if rounds else F16_KV_TOLERANCE), "engine", spec.name, f"f16 KV, {level}: max |diff| {diff:.1e}")
    part_few_bits(report, spec, path, tokens)


def part_few_bits(report, spec, path, tokens):
    """Keys and values of 8 and 4 bits: near enough that nothing of what is stored, turned and turned back can be wrong."""
    want = reference.forward(path, tokens)["logits"]
    for kind, tolerance in FEW_BITS_TOLERANCE.items():
        error = median_row(engine_logits(spec, path, tokens, "-ctk", kind, "-ctv", kind), want)
        report.check(error <= tolerance, "engine", spec.name, f"{kind} KV: relative rms difference of the middle row {error:.1e}")


def part_engine_quantized(report, spec, path):
    tokens = make_models.prompt(spec)
    exact = reference.forward(path, tokens)["logits"]
    error = relative_rms(engine_logits(spec, path, tokens, *F32_KV, "--exact"), exact)
    report.check(error <= EXACT_TOLERANCE, "engine", spec.name, f"f32 activations: relative rms difference {error:.1e}")
    is_half = spec.weight_type.name in ("F16", "BF16")
    rounded = [None] * TRIES
    for level in cpu_levels():
        for skip in range(TRIES):
            part = tokens[skip:]
            if is_half and level in BF16_LEVELS:
                want = reference.forward(path, part, halves="bf16")["logits"]
            else:
                if rounded[skip] is None:
                    rounded[skip] = reference.forward(path, part, activations="q8")["logits"]
                want = rounded[skip]
            got = engine_logits(spec, path, part, *F32_KV, "--cpu", level)
            whole, row = relative_rms(got, want), best_row(got, want)
            nothing_rounds = is_half and level not in BF16_LEVELS
            ok = whole <= EXACT_TOLERANCE if nothing_rounds else row <= ROW_TOLERANCE and whole <= WHOLE_TOLERANCE
            if ok:
                break
        report.check(ok, "engine", spec.name, f"{level}: relative rms difference {whole:.1e}, of the best row {row:.1e}")


def part_same(report, spec, path):
    """Every thread count and every cut of the prompt gives the same bits."""
    tokens = make_models.prompt(spec)
    settings = [("-t", "2"), ("-t", "3", "-ub", "16"), ("-t", "2", "-ub", "1")]
    if spec.is_f32:
        settings += [("-t", "3"), ("-t", "1", "-b", "7", "-ub", "3"), ("-t", "2", "-b", "512", "-ub", "5")]
    different = []
    for level in cpu_levels():
        base = engine_logits(spec, path, tokens, "-t", "1", "--cpu", level)
        for options in settings:
            got = engine_logits(spec, path, tokens, *options, "--cpu", level)
            if got.tobytes() != base.tobytes():
                different.append(f"{level} {' '.join(options)} (max |diff| {max_diff(got, base):.1e})")
    report.check(not different, "same", spec.name, "; ".join(different) or f"{len(settings)} settings on {', '.join(LEVELS)}")


# ---- where is it wrong? -------------------------------------------------------------------------------------------------

def stages(spec):
    """(what is in the model, shortened model) from the smallest to the whole; the first that differs holds the error."""
    def feed_forward(i, *kinds):
        return [f"blk.{i}.ffn_down{kind}.{part}" for kind in kinds for part in ("weight", "bias")]

    first = ["blk.0.attn_output.weight", "blk.0.attn_output.bias"] + feed_forward(0, "", "_exps", "_shexp")
    yield "embedding, output norm, head", make_models.shortened(spec, 1, first)
    for i in range(spec.n_layer):
        feed = feed_forward(i, "", "_exps", "_shexp")
        if spec.arch != "phi3":  # there q is one piece with k and v
            flat = feed + [f"blk.{i}.{n}" for n in ("attn_q.weight", "attn_q.bias", "attn_q_b.weight")]  # all tokens count the same
            yield f"layer {i}: values, mask, attention output", make_models.shortened(spec, i + 1, flat)
        yield f"layer {i}: queries, keys, rotation, scores", make_models.shortened(spec, i + 1, feed)
        if spec.n_expert and i >= spec.n_dense_lead:
            yield f"layer {i}: routing, experts", make_models.shortened(spec, i + 1, feed_forward(i, "_shexp"))
        yield f"layer {i}: feed-forward", make_models.shortened(spec, i + 1)


def locate(spec, folder, tokens, level):
    """Prints the first stage and token that differ."""
    path = os.path.join(folder, "stage.gguf")
    for what, stage in stages(spec):
        make_models.write_model(stage, path)
        want = reference.forward(path, tokens)["logits"]
        try:
            got = engine_logits(stage, path, tokens, *F32_KV, "--cpu", level)
        except RuntimeError as error:
            print(f"       {what}: {error}")
            return
        if max_diff(got, want) > F32_TOLERANCE:
            rows = np.flatnonzero(np.abs(got - want).max(axis=1) > F32_TOLERANCE) if got.shape == want.shape else ["shape"]
            print(f"       first difference: {what}; first token position {rows[0]} of {len(tokens)}")
            return
    print("       no shortened model differs: the error needs the whole model")


# ---- main ---------------------------------------------------------------------------------------------------------------

SAME_MODELS = ["llama", "llama-mqa-odd", "llama-gqa4-head96", "llama-long-prompt", "gemma3-long-context", "qwen2-tied-odd", "qwen3", "gemma2", "gemma3",
               "phi3-long", "granite-biases", "olmo3-window", "llama-moe-odd", "llama-moe-long-prompt", "qwen2moe", "qwen3moe-16",
               "granitemoe-shared", "ernie-moe", "gpt-oss", "deepseek2-lite", "deepseek2-full"]


def run_model(report, spec, folder, peer, with_engine):
    path = make_models.write_model(spec, os.path.join(folder, spec.name + ".gguf"))
    f32 = spec.is_f32
    if f32:
        part_self(report, spec, path)
        if spec.n_layer < 10 and spec.n_tokens < 500:  # the large ones take long and have small sisters
            part_sensitivity(report, spec, path)
        if peer:
            part_peer(report, spec, path, peer)
    if not with_engine:
        return
    try:
        if f32:
            part_engine_f32(report, spec, path, folder)
        else:
            part_engine_quantized(report, spec, path)
        if not f32 or spec.name in SAME_MODELS:
            part_same(report, spec, path)
    except (RuntimeError, OSError) as error:
        report.check(False, "engine", spec.name, str(error))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="comma separated model names")
    parser.add_argument("--keep", help="write the models here and leave them")
    parser.add_argument("--self-check", action="store_true", help="do not run the command")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(make_models.MODELS)
    peer = peer_logits.find()
    with_engine = not args.self_check and engine_exists()
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or temporary
        os.makedirs(folder, exist_ok=True)
        for name in names:
            run_model(report, make_models.MODELS[name], folder, peer, with_engine)
    print(f"{report.n_checks} checks, {len(report.failures)} failed" + (": " + ", ".join(report.failures) if report.failures else ""))
    if report.failures:
        return 1
    if not with_engine and not args.self_check:
        print("skipped: the engine part (no command with `eval logits` at $DIL_BINARY)")
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
