#!/usr/bin/env python3
"""Independent NumPy forward pass of the golden models: written from the architectures' definitions, step by step.

    reference.py MODEL.gguf --tokens 1,2,3 [-o OUT.npy] [--steps] [--dtype float64] [--kv f32|f16] [-c CTX] [--activations f32|q8] [--halves f32|bf16]

Slow and plain on purpose: one prompt, no cache, the whole sequence at once. Every step's result has a name, so that a test can
say which one differs first. Shapes use T tokens, E embedding, H heads, G key/value heads, D head size, V vocabulary.
Owns the mathematics of plain layers; mixtures of experts are in experts.py, compressed keys and values in latent.py. Does not own
how files are made (make_models.py) or read (PyPI gguf).
"""
import argparse
import sys

import gguf
import numpy as np

import blocks
import experts
import latent

NORM_PAIRS = ("llama", "granite", "granitemoe", "ernie4_5-moe", "deepseek2")  # RoPE turns (2i, 2i+1); others (i, i + n_rot / 2)
HEAD_NORMS = ("qwen3", "qwen3moe", "gemma3")     # q and k are normalised head by head
WHOLE_NORMS = ("olmo2", "olmoe")                 # or over all heads at once
NO_PRE_NORMS = ("olmo2",)
POST_NORMS = ("gemma2", "gemma3", "olmo2")
FFN_NORM = {"gpt-oss": "post_attention_norm"}    # the norm before the feed-forward where it is not ffn_norm
GRANITE = ("granite", "granitemoe")
ROPE_FACTORS = ("llama", "phi3", *GRANITE)       # tensors with a divisor of each pair's frequency may be there


class Model:
    """Keys and decoded weights of one GGUF file."""

    def __init__(self, path, dtype=np.float64):
        reader = gguf.GGUFReader(path)
        self.dtype = dtype
        self.keys = {name: field.contents() for name, field in reader.fields.items()}
        self.arch = self.keys["general.architecture"]
        self.tensors, self.types = {}, {}
        for t in reader.tensors:
            self.types[t.name] = t.tensor_type.name
            self.tensors[t.name] = blocks.decode(t.data, t.tensor_type).astype(dtype)
        self.read_shape()
        self.read_rope()

    def key(self, name, default=None):
        """Value of '<arch>.<name>'."""
        return self.keys.get(f"{self.arch}.{name}", default)

    def get(self, name, default=None):
        return self.tensors.get(name, default)

    def read_shape(self):
        self.n_layer = self.key("block_count")
        self.n_embd = self.key("embedding_length")
        self.n_ff = self.key("feed_forward_length")
        self.n_head = self.key("attention.head_count")
        self.n_head_kv = self.key("attention.head_count_kv", self.n_head)
        self.head_dim = self.key("attention.key_length", self.n_embd // self.n_head)
        self.n_vocab = self.tensors["token_embd.weight"].shape[0]
        self.eps = self.key("attention.layer_norm_rms_epsilon")

    def read_rope(self):
        self.n_rot = self.key("rope.dimension_count", self.head_dim)
        self.rope_base = self.key("rope.freq_base", 10000.0)
        self.rope_kind = self.key("rope.scaling.type", "linear")
        self.rope_factor = self.key("rope.scaling.factor", 0.0) or 1.0
        if self.rope_kind == "none":
            self.rope_factor = 1.0
        self.n_ctx_orig = self.key("rope.scaling.original_context_length", self.key("context_length"))


# ---- building blocks ----------------------------------------------------------------------------------------------------

def rms_norm(x, weight, eps):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps)) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    """The tanh form of GELU that Gemma is trained with."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def gelu_f16_table(x):
    """GELU as an engine with a table of 65,536 f16 inputs computes it: input and result rounded to f16, tails exact."""
    inner = gelu_tanh(np.clip(x, -10, 10).astype(np.float16).astype(np.float32)).astype(np.float16)
    return np.where(x <= -10, 0, np.where(x >= 10, x, inner)).astype(x.dtype)


def softmax(x, sink=None):
    """Over the last axis; a sink [..., 1] takes its share of the sum and gives nothing."""
    most = x.max(axis=-1, keepdims=True)
    most = most if sink is None else np.maximum(most, sink)
    e = np.exp(x - most)
    total = e.sum(axis=-1, keepdims=True)
    return e / (total if sink is None else total + np.exp(sink - most))


def swiglu_limited(gate, up, limit=7.0, sharpness=1.702):
    """gpt-oss: gate at most `limit`, up within +-limit; gate * sigmoid(1.702 gate) * (up + 1)."""
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return gate / (1 + np.exp(-sharpness * gate)) * (up + 1)


def soft_cap(x, cap):
    """cap * tanh(x / cap); no cap when it is 0 or absent."""
    return cap * np.tanh(x / cap) if cap else x


def round_q8(x, block=32):
    """Activations as int8 with one f32 scale per `block` values: the engine's meeting point with quantized weights. Of four
    grids (the largest value near 127, 126, 125, 124) the one of least squared error, its scale fitted; values go through a
    grid 256 times as fine first, so that all sums are whole numbers."""
    parts = x.reshape(*x.shape[:-1], -1, block).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        largest = np.abs(parts).max(axis=-1, keepdims=True)
        fine = np.rint(np.where(largest > 0, parts * (np.float32(127 * 256) / largest), np.float32(0))).astype(np.float64)
        best, kept, factor = np.full(largest.shape, -1.0), np.zeros_like(fine), np.ones_like(largest, dtype=np.float64)
        for candidate in range(4):
            q = np.floor((fine * (128 - candidate) + 2**14) / 2**15)
            dot, square = (fine * q).sum(axis=-1, keepdims=True), (q * q).sum(axis=-1, keepdims=True)
            explained = np.where(square > 0, dot * dot / square, 0.0)
            better = explained > best
            best, kept = np.where(better, explained, best), np.where(better, q, kept)
            factor = np.where(better & (square > 0), dot / square / 256, factor)
    return (kept * factor * (largest / np.float32(127))).reshape(x.shape).astype(x.dtype)


def mix_bf16(scores, v, sink=None, chunk=512):
    """Weighted sums [T, H, D] of v[T, H, D] by scores[H, T, T], where weights (of the largest score of each chunk of positions) and v
    are rounded to bf16 before they are multiplied and summed; a sink [H, 1, 1] as in softmax()."""
    parts = []
    for at in range(0, scores.shape[2], chunk):
        s = scores[:, :, at:at + chunk]
        most = np.maximum(s.max(axis=-1, keepdims=True), np.finfo(s.dtype).min)  # finite also where nothing is visible
        weights = round_bf16(np.exp(s - most)).astype(s.dtype)
        parts.append((most, weights.sum(axis=-1, keepdims=True), np.einsum("hij,jhd->hid", weights, round_bf16(v[at:at + chunk]).astype(s.dtype))))
    top = np.max([most for most, _, _ in parts], axis=0)
    scale = [np.exp(most - top) for most, _, _ in parts]
    total = sum(f * part for f, (_, part, _) in zip(scale, parts)) + (0 if sink is None else np.exp(sink - top))
    mixed = sum(f * acc for f, (_, _, acc) in zip(scale, parts)) / total
    return mixed.transpose(1, 0, 2)


def round_bf16(x):
    """To nearest even with 8 significant bits, as the bf16 dot product takes weights and activations."""
    bits = x.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & np.uint32(0xffff0000)
    return bits.view(np.float32).astype(x.dtype)


# ---- rotary positions ---------------------------------------------------------------------------------------------------

def yarn_keep(m, base):
    """[n_rot/2] share of each pair that keeps its original frequency (1: fast pairs, 0: slow pairs), YaRN with 32 and 1 turns."""
    def pair_with_turns(turns):
        return m.n_rot * np.log(m.n_ctx_orig / (turns * 2 * np.pi)) / (2 * np.log(base))
    low = max(0.0, np.floor(pair_with_turns(32.0)))
    high = min(m.n_rot - 1.0, np.ceil(pair_with_turns(1.0)))
    pair = np.arange(m.n_rot // 2)
    return 1 - np.clip((pair - low) / max(0.001, high - low), 0, 1)


def rope_factors(m, n_ctx):
    """[n_rot/2] divisors of the frequencies: Llama 3's tensor, or long/short factors chosen by the context size."""
    if "rope_freqs.weight" in m.tensors:
        return m.get("rope_freqs.weight")
    which = "long" if n_ctx > m.n_ctx_orig else "short"
    return m.get(f"rope_factors_{which}.weight", np.ones(m.n_rot // 2))


def rope_table(m, layer, n_tokens, n_ctx):
    """cos and sin [T, n_rot/2] for one layer, with the magnitude scale multiplied in."""
    local = is_local(m, layer)
    base, factor, kind = m.rope_base, m.rope_factor, m.rope_kind
    if local and m.arch in ("gemma2", "gemma3", "gpt-oss"):
        base = m.key("rope.freq_base_swa", 10000.0 if m.arch == "gemma3" else m.rope_base)
        factor = 1.0 if m.arch == "gemma3" else factor
    if local and m.arch == "olmo2":
        factor, kind = 1.0, "none"
    freq = np.float64(base) ** (-2.0 * np.arange(m.n_rot // 2) / m.n_rot)
    if m.arch in ROPE_FACTORS:
        freq = freq / rope_factors(m, n_ctx)
    magnitude = 1.0 if kind == "none" else m.key("rope.scaling.attn_factor", 1.0)
    if kind == "yarn":
        keep = yarn_keep(m, base)
        freq = freq * keep + freq / factor * (1 - keep)
        in_scores = m.arch == "deepseek2" and m.key("rope.scaling.yarn_log_multiplier", 0.0)
        magnitude *= 1.0 if in_scores else 1 + 0.1 * np.log(factor)
    else:
        freq = freq / factor
    angle = np.arange(n_tokens)[:, None] * freq[None, :]
    return (np.cos(angle) * magnitude).astype(m.dtype), (np.sin(angle) * magnitude).astype(m.dtype)


def rotate(m, x, cos, sin):
    """Turns the first n_rot values of every head of x [T, heads, D]; the rest pass through."""
    out = x.copy()
    half = m.n_rot // 2
    if m.arch in NORM_PAIRS:
        first, second = slice(0, m.n_rot, 2), slice(1, m.n_rot, 2)
    else:
        first, second = slice(0, half), slice(half, m.n_rot)
    a, b = x[..., first], x[..., second]
    c, s = cos[:, None, :], sin[:, None, :]
    out[..., first] = a * c - b * s
    out[..., second] = a * s + b * c
    return out


# ---- attention ----------------------------------------------------------------------------------------------------------

def window_period(m):
    """Of how many layers the last one sees everything; 0 when no layer has a window."""
    window = m.key("attention.sliding_window", 0)
    if m.arch in ("gemma2", "gpt-oss"):
        return 2
    if m.arch == "gemma3" and window:
        return 6
    if m.arch == "olmo2" and window:
        return 4
    return 0  # llama, qwen, phi3: a window in the file is not applied, as in llama.cpp


def is_local(m, layer):
    """Whether this layer sees only the last `sliding_window` tokens."""
    period = window_period(m)
    if not period:
        return False
    pattern = m.key("attention.sliding_window_pattern", period)
    if isinstance(pattern, (list, tuple)):
        return bool(pattern[layer])
    return layer % pattern < pattern - 1


def visible(m, layer, n_tokens):
    """[T, T] mask: row i may look at column j."""
    i, j = np.arange(n_tokens)[:, None], np.arange(n_tokens)[None, :]
    mask = j <= i
    if is_local(m, layer):
        mask &= i - j < m.key("attention.sliding_window", 4096)
    return mask


def score_scale(m):
    if m.arch == "deepseek2":
        return latent.score_scale(m)
    if m.arch in ("llama", *GRANITE) and m.key("attention.scale", 0.0):
        return m.key("attention.scale")
    if (m.arch, m.n_layer) in (("gemma2", 46), ("gemma3", 62)):  # the 27B models divide by sqrt(n_embd / n_head)
        return 1 / np.sqrt(m.n_embd // m.n_head)
    return 1 / np.sqrt(m.head_dim)


def split_heads(x, n):
    return x.reshape(x.shape[0], n, -1)


class Pass:
    """One forward pass; `steps` collects every named result in order."""

    def __init__(self, model, tokens, n_ctx=0, kv="f32", activations="f32", gelu="exact", halves="f32"):
        self.m, self.tokens = model, np.asarray(tokens)
        self.n_ctx = n_ctx or max(len(tokens), model.key("context_length"))
        self.kv, self.activations, self.halves = kv, activations, halves
        self.gelu = gelu_tanh if gelu == "exact" else gelu_f16_table
        self.steps = {}

    def save(self, name, value):
        self.steps[name] = value
        return value

    def linear(self, x, name, expert=None):
        """x [T, n_in] -> [T, n_out]: x @ W^T + b; with `expert`, that one's part of stacked tensors."""
        weight, bias = self.m.tensors[name + ".weight"], self.m.get(name + ".bias")
        if expert is not None:
            weight, bias = weight[expert], None if bias is None else bias[expert]
        kind = self.m.types[name + ".weight"]
        if self.halves == "bf16" and kind in ("F16", "BF16"):
            x, weight = round_bf16(x), round_bf16(weight)
        if self.activations == "q8" and kind not in ("F32", "F16", "BF16"):
            x = round_q8(x)
        y = x @ weight.T
        return y if bias is None else y + bias

    def norm(self, x, name):
        return rms_norm(x, self.m.tensors[name + ".weight"], self.m.eps)

    def embed(self):
        m = self.m
        x = self.save("embed", m.tensors["token_embd.weight"][self.tokens])
        scale = np.sqrt(m.n_embd) if m.arch in ("gemma2", "gemma3") else m.key("embedding_scale", 0.0)
        if scale:
            x = self.save("embed_scaled", x * m.dtype(scale))
        return x

    def project_qkv(self, x, p):
        """q [T, H, D], k [T, G, D], v [T, G, D]: before norms and rotation."""
        m = self.m
        n_q, n_kv = m.n_head * m.head_dim, m.n_head_kv * m.head_dim
        if p + "attn_qkv.weight" in m.tensors:
            q, k, v = np.split(self.linear(x, p + "attn_qkv"), [n_q, n_q + n_kv], axis=-1)
        else:
            q, k, v = (self.linear(x, p + f"attn_{which}") for which in "qkv")
        if m.arch in WHOLE_NORMS:
            q, k = self.norm(q, p + "attn_q_norm"), self.norm(k, p + "attn_k_norm")
        q, k, v = split_heads(q, m.n_head), split_heads(k, m.n_head_kv), split_heads(v, m.n_head_kv)
        if m.arch in HEAD_NORMS:
            q, k = self.norm(q, p + "attn_q_norm"), self.norm(k, p + "attn_k_norm")
        return q, k, v

    def positioned_qkv(self, x, layer):
        """q [T, H, D], k [T, G, D], v [T, G, D']: as the scores and the KV cache see them."""
        m, p = self.m, f"blk.{layer}."
        cos, sin = rope_table(m, layer, len(self.tokens), self.n_ctx)
        if latent.is_latent(m, p):
            return latent.project(self, x, p, lambda part: rotate(m, part, cos, sin))
        q, k, v = self.project_qkv(x, p)
        self.save(p + "q", q), self.save(p + "k", k), self.save(p + "v", v)
        if m.key("rope.scaling.finetuned", True) or m.arch != "granite":
            q = self.save(p + "q_rope", rotate(m, q, cos, sin))
            k = self.save(p + "k_rope", rotate(m, k, cos, sin))
        return q, k, v

    def mix(self, q, k, v, layer):
        """Values mixed by the softmax of the scores: [T, H, D']."""
        m, p, n_tokens = self.m, f"blk.{layer}.", len(self.tokens)
        if self.kv == "f16":
            k, v = k.astype(np.float16).astype(m.dtype), v.astype(np.float16).astype(m.dtype)
        group = m.n_head // k.shape[1]
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)  # head h reads key/value head h // group
        scores = np.einsum("ihd,jhd->hij", q, k) * m.dtype(score_scale(m))
        if m.arch == "gemma2":
            scores = soft_cap(scores, m.key("attn_logit_softcapping", 50.0))
        scores = np.where(visible(m, layer, n_tokens)[None], scores, -np.inf)
        sink = m.get(p + "attn_sinks.weight")
        sink = None if sink is None else sink[:, None, None]
        if self.kv == "f16" and self.halves == "bf16":
            return mix_bf16(scores, v, sink)
        return np.einsum("hij,jhd->ihd", self.save(p + "attn_weights", softmax(scores, sink)), v)

    def attention(self, x, layer):
        """Self-attention of one layer without its residual: [T, E]."""
        p = f"blk.{layer}."
        mixed = latent.expand(self, self.mix(*self.positioned_qkv(x, layer), layer), p)
        mixed = self.save(p + "attn_mixed", mixed.reshape(len(x), -1))
        return self.save(p + "attn_out", self.linear(mixed, p + "attn_output"))

    def gated(self, x, p, kind="", expert=None):
        """down(activation(gate(x)) * up(x)): the dense feed-forward, a shared expert or one of many: [T, E]."""
        fused = p + ("ffn_up" if self.m.arch == "phi3" else "ffn_gate_up") + kind
        if fused + ".weight" in self.m.tensors:
            gate, up = np.split(self.linear(x, fused, expert), 2, axis=-1)
        else:
            gate, up = (self.linear(x, f"{p}ffn_{which}{kind}", expert) for which in ("gate", "up"))
        if self.m.arch == "gpt-oss":
            hidden = swiglu_limited(gate, up)
        else:
            hidden = (self.gelu if self.m.arch in ("gemma2", "gemma3") else silu)(gate) * up
        if expert is None:
            self.save(f"{p}ffn_gate{kind}", gate), self.save(f"{p}ffn_up{kind}", up), self.save(f"{p}ffn_hidden{kind}", hidden)
        return self.linear(hidden, p + "ffn_down" + kind, expert)

    def feed_forward(self, x, layer):
        """Feed-forward of one layer without its residual: [T, E]."""
        p = f"blk.{layer}."
        if p + "ffn_gate_inp.weight" in self.m.tensors:
            return experts.feed_forward(self, x, p)
        return self.save(p + "ffn_out", self.gated(x, p))

    def block(self, x, layer):
        m, p = self.m, f"blk.{layer}."
        pre, post = m.arch not in NO_PRE_NORMS, m.arch in POST_NORMS
        residual_scale = m.dtype(m.key("residual_scale", 0.0) or 1.0)
        h = self.save(p + "attn_norm", self.norm(x, p + "attn_norm")) if pre else x
        h = self.attention(h, layer)
        if post:
            h = self.save(p + "attn_post_norm", self.norm(h, p + "post_attention_norm"))
        x = self.save(p + "attn_residual", x + h * residual_scale)
        h = self.save(p + "ffn_norm", self.norm(x, p + FFN_NORM.get(m.arch, "ffn_norm"))) if pre else x
        h = self.feed_forward(h, layer)
        if post:
            h = self.save(p + "ffn_post_norm", self.norm(h, p + "post_ffw_norm"))
        return self.save(p + "out", x + h * residual_scale)

    def head(self, x):
        m = self.m
        x = self.save("output_norm", self.norm(x, "output_norm"))
        logits = self.linear(x, "output" if "output.weight" in m.tensors else "token_embd")
        if m.arch in GRANITE:
            logits = logits / m.dtype(m.key("logit_scale"))
        if m.arch == "gemma2":
            logits = soft_cap(logits, m.key("final_logit_softcapping", 30.0))
        elif m.arch == "gemma3":
            logits = soft_cap(logits, m.key("final_logit_softcapping", 0.0))
        return self.save("logits", logits)

    def run(self):
        x = self.embed()
        for layer in range(self.m.n_layer):
            x = self.block(x, layer)
        self.head(x)
        return self.steps


def forward(path, tokens, dtype=np.float64, **options):
    """Every named step of the model at `path` on `tokens`; 'logits' [T, V] is the last."""
    return Pass(Model(path, dtype), tokens, **options).run()


def first_difference(expected, actual, tolerance):
    """Name and size of the first step, in order, that both dicts have and whose max |difference| exceeds tolerance * its size."""
    for name, want in expected.items():
        if name in actual:
            got = np.asarray(actual[name]).reshape(want.shape)
            diff = np.abs(got - want).max()
            if not diff <= tolerance * max(1.0, np.abs(want).max()):
                return name, float(diff)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", required=True)
    parser.add_argument("-o", "--output", help=".npy for the logits, float32 [n_tokens, n_vocab]")
    parser.add_argument("--steps", action="store_true", help="print every step's shape, mean size and first values")
    parser.add_argument("--dtype", default="float64", choices=["float32", "float64"])
    parser.add_argument("--kv", default="f32", choices=["f32", "f16"])
    parser.add_argument("--activations", default="f32", choices=["f32", "q8"])
    parser.add_argument("--halves", default="f32", choices=["f32", "bf16"], help="inputs of F16 and BF16 layers, and with f16 KV attention weights and V")
    parser.add_argument("--gelu", default="exact", choices=["exact", "f16"])
    parser.add_argument("-c", "--ctx", type=int, default=0)
    args = parser.parse_args()
    steps = forward(args.model, [int(t) for t in args.tokens.split(",")], np.dtype(args.dtype).type, n_ctx=args.ctx, kv=args.kv,
                    activations=args.activations, gelu=args.gelu, halves=args.halves)
    if args.steps:
        for name, value in steps.items():
            first = " ".join(f"{v:.6g}" for v in value.reshape(-1)[:6])
            print(f"{name:24} {str(value.shape):18} rms {np.sqrt(np.mean(value ** 2)):.5f}  {first}")
    if args.output:
        np.save(args.output, steps["logits"].astype(np.float32))
    return 0


if __name__ == "__main__":
    sys.exit(main())
