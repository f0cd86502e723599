#!/usr/bin/env python3
"""`dil eval` against llama-perplexity on the same files: perplexity, and the KL divergence through each other's base file.

    test_eval_peer.py [--chunks N] [-t N]

Runs when $DIL_LLAMA_CPP_BIN names the folder of llama-perplexity and the command and ../shared/data/wiki.test.raw exist; else 77.
Models: a golden one of every architecture (F32, random weights: every decimal of the chain is compared) and those of
$DIL_TEST_MODELS (paths with ':' between them), where the promise is 0.3 % of llama.cpp's perplexity.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SHARED = os.environ.get("DIL_SHARED") or os.path.join(SOURCE, "..", "shared")
BINARY = os.environ.get("DIL_BINARY", "")
PEER = os.path.join(os.environ.get("DIL_LLAMA_CPP_BIN", ""), "llama-perplexity")
TEXT = os.path.join(SHARED, "data", "wiki.test.raw")
GOLDEN = ["llama", "llama3-rope", "qwen2", "qwen3-tied-odd", "gemma2", "gemma3", "phi3-long", "granite", "olmo3-window", "llama-q8_0",
          "llama-q4_k"]
F32_KV = ["-ctk", "f32", "-ctv", "f32"]
F32_KLD = 1e-5         # mean KL divergence, F32 weights, f32 KV on both sides; the base file itself holds 16-bit log probabilities
QUANT_KLD = 8e-3       # both engines round activations to 8 bits
PPL_RELATIVE = 3e-3    # real models
GOLDEN_PPL = 1e-3      # F32 golden models
GOLDEN_QUANT_PPL = 2e-2  # random weights amplify the rounding of activations


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout + done.stderr


def find_key(value, keys):
    """The first number under one of the keys, anywhere in a JSON value."""
    if isinstance(value, dict):
        for key in keys:
            if isinstance(value.get(key), (int, float)):
                return float(value[key])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found = find_key(item, keys)
            if found is not None:
                return found
    return None


def parse_json(text):
    """One JSON value, or one per line."""
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def run_json(command, keys):
    """One number of a command's --json output."""
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:3])}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    number = find_key(parse_json(done.stdout), keys)
    if number is None:
        raise RuntimeError(f"{' '.join(command[1:3])}: none of {keys} in {done.stdout[:300]}")
    return number


def run_peer(command, pattern):
    """One number of llama-perplexity's log; it is run again when it ends before its log thread has written the last lines."""
    for _ in range(5):
        text = run(command)
        found = re.search(pattern, text)
        if found:
            return float(found.group(1))
    raise RuntimeError(f"no {pattern!r} in {text[-500:]}")


class Comparison:
    """The same model, text and cut on both sides."""

    def __init__(self, model, folder, n_ctx, args):
        self.model, self.folder = model, folder
        self.common = ["-m", model, "-t", str(args.t), *F32_KV]
        self.text = ["-f", TEXT, "-c", str(n_ctx), "--chunks", str(args.chunks)]
        self.n_ctx = n_ctx

    def path(self, name):
        return os.path.join(self.folder, name)

    def perplexities(self):
        """(ours, llama.cpp's), each also writing its base file."""
        ours = run_json([BINARY, "eval", "perplexity", *self.common, *self.text, "--save-base", self.path("ours.kld")],
                        ["perplexity", "ppl"])
        peer = run_peer([PEER, *self.common, *self.text, "-fa", "off", "--kl-divergence-base", self.path("peer.kld")],
                        r"Final estimate: PPL = ([\d.]+)")
        return ours, peer

    def divergences(self):
        """(our run against llama.cpp's base, llama.cpp's run against our base)."""
        ours = run_json([BINARY, "eval", "kld", *self.common, "--base", self.path("peer.kld")], ["mean_kld", "kld_mean", "kld"])
        peer = run_peer([PEER, *self.common, "-c", str(self.n_ctx), "-fa", "off", "--kl-divergence", "--kl-divergence-base",
                         self.path("ours.kld")], r"Mean\s+KLD:\s+(-?[\d.]+)")
        return ours, peer


def compare(name, comparison, ppl_tolerance, kld_tolerance):
    """Prints one line; True when all three numbers hold."""
    try:
        ours, peer = comparison.perplexities()
        kld, kld_back = comparison.divergences()
    except (RuntimeError, OSError, ValueError) as error:
        print(f"FAIL {name:20} {error}")
        return False
    ok = abs(ours / peer - 1) <= ppl_tolerance and kld <= kld_tolerance and kld_back <= kld_tolerance + 1e-6
    print(f"{'ok  ' if ok else 'FAIL'} {name:20} perplexity {ours:.4f} / {peer:.4f} ({ours / peer - 1:+.1e}), "
          f"KLD {kld:.1e} with their base, {kld_back:.1e} theirs with ours", flush=True)
    return ok


def check_files():
    if not os.environ.get("DIL_LLAMA_CPP_BIN") or not os.access(PEER, os.X_OK):
        skip("no llama-perplexity: set DIL_LLAMA_CPP_BIN")
    if not os.path.exists(TEXT):
        skip("no ../shared/data/wiki.test.raw: set DIL_SHARED")
    if not BINARY or not os.access(BINARY, os.X_OK):
        skip("no command at $DIL_BINARY")
    if subprocess.run([BINARY, "eval", "perplexity", "--help"], capture_output=True).returncode:
        skip("the command has no `eval perplexity`")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("-t", type=int, default=2)
    args = parser.parse_args()
    check_files()
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, os.path.join(SOURCE, "tests", "golden"))
        try:
            import make_models
            for name in GOLDEN:
                spec = make_models.MODELS[name]
                path = make_models.write_model(spec, os.path.join(folder, name + ".gguf"))
                exact = spec.weight_type.name == "F32"
                ok &= compare(name, Comparison(path, folder, 128, args), GOLDEN_PPL if exact else GOLDEN_QUANT_PPL,
                              F32_KLD if exact else QUANT_KLD)
        except ImportError as missing:
            print(f"golden models left out: {missing}")
            if not os.environ.get("DIL_TEST_MODELS"):
                skip("pip install numpy gguf, or set DIL_TEST_MODELS")
        for path in filter(None, os.environ.get("DIL_TEST_MODELS", "").split(":")):
            ok &= compare(os.path.basename(path)[:20], Comparison(path, folder, 512, args), PPL_RELATIVE, QUANT_KLD)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
