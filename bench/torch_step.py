#!/usr/bin/env python3
"""Time one training step of a small qwen3moe-shaped model in PyTorch on the CPU.

A yardstick for a trainer written in another language: the same shapes, the same
batch, the same number of threads.  It trains on random tokens, so it measures
time only.  One step is: forward, losses, backward, gradient clipping, AdamW.

    python torch_step.py --dtype f32
    python torch_step.py --dtype bf16
    python torch_step.py --experts 0 --ff 512          # the dense model
    python torch_step.py --check                       # the variants agree?

The model: token embedding tied with the output head; pre-norm blocks of
grouped-query attention (RMSNorm on each query and key head, RoPE on halves,
causal) and SwiGLU experts behind a softmax router, whose top `--used`
probabilities are normalised to sum to one; Switch balance loss and router
z-loss; mean cross-entropy over the vocabulary.

The choices that matter for speed, all of them options:

--experts-by  loop     tokens sorted by expert; plain autograd, one expert at a
                       time, index_select in and index_add out
              bmm      padded batch matmul, capacity = the largest load
              grouped  torch.nn.functional.grouped_mm on the sorted tokens
              manual   sorted tokens, one autograd function around the experts,
                       matmuls written straight into slices (out=)
--compile     none     eager; RMSNorm, RoPE and so on are separate kernels
              parts    inductor fuses the element-wise parts (norm + RoPE,
                       SwiGLU, softmax of the loss); matmuls stay library calls
              model    inductor compiles everything between embedding and head, but
                       for the autograd functions below that call the library
--attention   blocks   a block of queries against the keys up to its end, as batched
                       matmuls; the probabilities are kept for the backward
              sdpa     scaled_dot_product_attention (its backward is slow on a CPU)
              plain    all of the scores, then a mask
--align       rows of an expert are rounded up to a multiple of this.  oneDNN
              compiles a kernel for each new shape, and the loads of the experts are
              new each step: without it, that costs more than the padding
--ce-chunk    rows of logits held at once; the gradient is formed with the
              loss, so that the logits of the batch never exist (0: all at once)
--f32-matmul  mkl or onednn; both compute in full f32 on a CPU without AMX
--clip-by     scale    the fused AdamW divides by the clip factor as it reads
              norm     torch.nn.utils.clip_grad_norm_, a pass of its own

With bf16 the parameters, optimiser state, norms, router, softmax of the loss
and the residual stream are f32; matmuls and attention take bf16 copies.

Prints one line of JSON.  "seconds_per_step" is the median; compare it with "fastest"
and "slowest", and repeat with more --warmup if something was still being compiled.
Compiling needs a C++ compiler and Python's headers.  The threads of OpenMP spin while
they wait: time on an idle machine, or set OMP_WAIT_POLICY=passive on a shared one.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import time


def options():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = p.add_argument_group("model")
    model.add_argument("--vocab", type=int, default=8192)
    model.add_argument("--context", type=int, default=512)
    model.add_argument("--embd", type=int, default=256)
    model.add_argument("--layers", type=int, default=4)
    model.add_argument("--heads", type=int, default=4)
    model.add_argument("--kv-heads", type=int, default=2)
    model.add_argument("--head-dim", type=int, default=64)
    model.add_argument("--experts", type=int, default=32, help="0: a dense model")
    model.add_argument("--used", type=int, default=2, help="experts per token")
    model.add_argument("--ff", type=int, default=256, help="hidden width (of one expert)")
    model.add_argument("--rope-base", type=float, default=10000.0)
    model.add_argument("--eps", type=float, default=1e-6)
    train = p.add_argument_group("training")
    train.add_argument("--sequences", type=int, default=16, help="sequences in a batch")
    train.add_argument("--balance", type=float, default=1e-2, help="weight of the balance loss")
    train.add_argument("--zloss", type=float, default=1e-3, help="weight of the router z-loss")
    train.add_argument("--rate", type=float, default=1e-3)
    train.add_argument("--decay", type=float, default=0.1)
    train.add_argument("--clip", type=float, default=1.0)
    train.add_argument("--seed", type=int, default=1)
    how = p.add_argument_group("how")
    how.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    how.add_argument("--threads", type=int, default=2)
    how.add_argument("--experts-by", choices=["loop", "bmm", "grouped", "manual"],
                     default="grouped")
    how.add_argument("--compile", choices=["none", "parts", "model"], default="parts")
    how.add_argument("--attention", choices=["blocks", "sdpa", "plain"],
                     default="blocks")
    how.add_argument("--attention-block", type=int, default=128, help="queries in a block")
    how.add_argument("--align", type=int, default=64,
                     help="round the rows of an expert up to a multiple of this")
    how.add_argument("--ce-chunk", type=int, default=512)
    how.add_argument("--f32-matmul", choices=["mkl", "onednn"], default="onednn")
    how.add_argument("--clip-by", choices=["scale", "norm"], default="scale")
    how.add_argument("--malloc", choices=["keep", "default"], default="keep",
                     help="keep: glibc never returns memory, so no page is faulted in twice")
    how.add_argument("--no-flush-denormals", action="store_true")
    run = p.add_argument_group("run")
    run.add_argument("--warmup", type=int, default=3)
    run.add_argument("--steps", type=int, default=7, help="timed steps")
    run.add_argument("--check", action="store_true",
                     help="compare the gradients of all variants with the plainest one's")
    run.add_argument("--check-compile", default="none,parts,model",
                     help="the values of --compile that --check tries")
    run.add_argument("--profile", action="store_true", help="print a table of operators")
    return p.parse_args()


def keep_memory():
    """Let glibc serve big blocks from the heap and keep them."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)            # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)    # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass


ARGS = options()
os.environ.setdefault("OMP_NUM_THREADS", str(ARGS.threads))
if ARGS.malloc == "keep":
    keep_memory()

import torch                                  # noqa: E402  (after the settings above)
import torch.nn.functional as F               # noqa: E402
from torch.autograd import Function           # noqa: E402
from torch.autograd.function import once_differentiable   # noqa: E402


# ---- the element-wise parts; --compile parts fuses each of them -----------------

def rms_norm(x, weight, eps, dtype):
    """RMSNorm over the last dimension, in f32, handed on as dtype."""
    x = x.float()
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight).to(dtype)


def norm_and_rope(qk, weight, cos, sin, eps):
    """qk [B, T, heads, head_dim]: RMSNorm of each head, then RoPE on its halves."""
    x = qk.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(qk.dtype)


def swiglu(h):
    gate, up = h.chunk(2, -1)
    return F.silu(gate) * up


def swiglu_back(h, da):
    """The gradient of swiglu, and its value again: (dh, a)."""
    gate, up = (t.float() for t in h.chunk(2, -1))
    da = da.float()
    s = torch.sigmoid(gate)
    silu = gate * s
    dgate = da * up * (s + silu * (1 - s))
    return torch.cat((dgate, da * silu), -1).to(h.dtype), (silu * up).to(h.dtype)


def softmax_loss(logits, target):
    """(sum of the cross-entropies, their gradient with respect to the logits)."""
    logp = torch.log_softmax(logits, -1, dtype=torch.float32)
    loss = -logp.gather(1, target[:, None]).sum()
    return loss, torch.exp(logp).to(logits.dtype)   # minus one at the target: see below


def gather_sum(y, inverse, used):
    """Row n: the sum of the rows of y that belong to token n."""
    return y.index_select(0, inverse).view(-1, used, y.shape[1]).float().sum(1)


def mix(y, inverse, weight):
    """Row n: the sum of token n's rows of y, weighted [N, used]."""
    y = y.index_select(0, inverse).view(*weight.shape, y.shape[1])
    return (y.float() * weight[..., None]).sum(1)


def mix_back(g, y, inverse, weight, order):
    """Gradients of mix: (dy in the order of y, dweight); padding rows get zero."""
    n, used = weight.shape
    scale = torch.cat((weight.reshape(-1), weight.new_zeros(1))).index_select(0, order)
    rows = torch.div(order, used, rounding_mode="floor").clamp(max=n - 1)
    dy = g.index_select(0, rows) * scale[:, None]
    y = y.index_select(0, inverse).view(n, used, -1)
    dweight = (y.float() * g[:, None, :]).sum(-1)
    return dy.to(y.dtype), dweight


def causal_softmax(s, bias, scale):
    return torch.softmax(s.float() * scale + bias, -1).to(s.dtype)


def causal_softmax_back(prob, dprob, y, dy, scale):
    delta = (y.float() * dy.float()).sum(-1, keepdim=True)
    return (prob.float() * (dprob.float() - delta) * scale).to(prob.dtype)


PARTS = ("rms_norm", "norm_and_rope", "swiglu", "swiglu_back", "softmax_loss", "mix", "mix_back",
         "gather_sum", "causal_softmax", "causal_softmax_back")
PLAIN = {name: globals()[name] for name in PARTS}
# Compiled once for all numbers of rows: the loads of the experts change each step.
DYNAMIC = {"swiglu", "swiglu_back", "causal_softmax", "causal_softmax_back"}


def use_parts(compiled):
    for name in PARTS:
        globals()[name] = (torch.compile(PLAIN[name], dynamic=name in DYNAMIC)
                           if compiled else PLAIN[name])


# ---- the output head and its loss ----------------------------------------------

class HeadLoss(Function):
    """Mean cross-entropy of x @ weight.T, `chunk` rows at a time, gradients included."""

    @staticmethod
    def forward(ctx, x, weight, target, chunk):
        n = x.shape[0]
        dx = torch.empty_like(x)
        dweight = torch.zeros(weight.shape, dtype=torch.float32)
        total = torch.zeros((), dtype=torch.float32)
        for lo in range(0, n, chunk):
            xc, tc = x[lo:lo + chunk], target[lo:lo + chunk]
            loss, d = softmax_loss(torch.mm(xc, weight.t()), tc)
            total += loss
            d[torch.arange(len(tc)), tc] -= 1
            torch.mm(d, weight, out=dx[lo:lo + chunk])
            if d.dtype == torch.float32:
                dweight.addmm_(d.t(), xc)
            else:
                dweight += torch.mm(d.t(), xc)
        ctx.save_for_backward(dx, dweight)
        ctx.n, ctx.dtype = n, weight.dtype
        return total / n

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        dx, dweight = ctx.saved_tensors
        g = float(g) / ctx.n
        return dx.mul_(g), dweight.mul_(g).to(ctx.dtype), None, None


# ---- the experts ---------------------------------------------------------------

class Dispatch(Function):
    """Rows of x in the order of their experts; the way back is a gather too."""

    @staticmethod
    def forward(ctx, x, token, inverse, used):
        ctx.save_for_backward(inverse)
        ctx.used = used
        return x.index_select(0, token)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return gather_sum(g, ctx.saved_tensors[0], ctx.used).to(g.dtype), None, None, None


class Mix(Function):
    """The weighted sum of each token's expert outputs, without index_add."""

    @staticmethod
    def forward(ctx, y, weight, order, inverse):
        ctx.save_for_backward(y, weight, order, inverse)
        return mix(y, inverse, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        y, weight, order, inverse = ctx.saved_tensors
        dy, dweight = mix_back(g, y, inverse, weight, order)
        return dy, dweight, None, None


class Experts(Function):
    """SwiGLU experts over sorted rows; expert e has rows bounds[e] to bounds[e + 1]."""

    @staticmethod
    def forward(ctx, x, w_in, w_out, bounds):
        h = x.new_empty(x.shape[0], w_in.shape[1])
        y = torch.empty_like(x)
        for e, (lo, hi) in enumerate(zip(bounds, bounds[1:])):
            if hi > lo:
                he = h[lo:hi]
                torch.mm(x[lo:hi], w_in[e].t(), out=he)
                gate, up = he.chunk(2, -1)
                torch.mm(F.silu(gate).mul_(up), w_out[e].t(), out=y[lo:hi])
        ctx.save_for_backward(x, w_in, w_out, h)
        ctx.bounds = bounds
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, w_in, w_out, h = ctx.saved_tensors
        dx = torch.empty_like(x)
        dw_in, dw_out = torch.empty_like(w_in), torch.empty_like(w_out)
        for e, (lo, hi) in enumerate(zip(ctx.bounds, ctx.bounds[1:])):
            if hi == lo:
                dw_in[e].zero_()
                dw_out[e].zero_()
                continue
            dye = dy[lo:hi]
            dh, a = swiglu_back(h[lo:hi], torch.mm(dye, w_out[e]))
            torch.mm(dye.t(), a, out=dw_out[e])
            torch.mm(dh.t(), x[lo:hi], out=dw_in[e])
            torch.mm(dh, w_in[e], out=dx[lo:hi])
        return dx, dw_in, dw_out, None


@torch.compiler.disable
def experts_manual(x, w_in, w_out, weight, plan):
    order, token, inverse, ends = plan
    bounds = [0] + ends.tolist()
    y = Experts.apply(Dispatch.apply(x, token, inverse, weight.shape[1]), w_in, w_out, bounds)
    return Mix.apply(y, weight, order, inverse)


def experts_grouped(x, w_in, w_out, weight, plan):
    order, token, inverse, ends = plan
    ends = ends.to(torch.int32)
    xs = Dispatch.apply(x, token, inverse, weight.shape[1])
    h = F.grouped_mm(xs, w_in.transpose(1, 2), offs=ends)
    y = F.grouped_mm(swiglu(h), w_out.transpose(1, 2), offs=ends)
    return Mix.apply(y, weight, order, inverse)


@torch.compiler.disable
def experts_bmm(x, w_in, w_out, weight, plan):
    order, token, inverse, ends = plan
    xs = Dispatch.apply(x, token, inverse, weight.shape[1]).view(ends.numel(), -1, x.shape[1])
    h = torch.bmm(xs, w_in.transpose(1, 2))
    y = torch.bmm(swiglu(h), w_out.transpose(1, 2)).flatten(0, 1)
    return Mix.apply(y, weight, order, inverse)


@torch.compiler.disable
def experts_loop(x, w_in, w_out, weight, plan):
    order, token, _, ends = plan
    scale = weight.reshape(-1)[order]
    out = torch.zeros(x.shape, dtype=torch.float32)
    lo = 0
    for hi, wi, wo in zip(ends.tolist(), w_in.unbind(), w_out.unbind()):
        if hi > lo:
            rows = token[lo:hi]
            gate, up = F.linear(x.index_select(0, rows), wi).chunk(2, -1)
            y = F.linear(F.silu(gate) * up, wo)
            out = out.index_add(0, rows, y.float() * scale[lo:hi, None])
        lo = hi
    return out


EXPERTS = {"loop": experts_loop, "bmm": experts_bmm, "grouped": experts_grouped,
           "manual": experts_manual}


def route(x, w_router, o):
    """Router of the f32 rows x: (weights [N, used], chosen experts [N, used], its losses)."""
    logits = F.linear(x, w_router)
    probs = torch.softmax(logits, -1)
    weight, chosen = probs.topk(o.used, -1)
    weight = weight / weight.sum(-1, keepdim=True)
    load = torch.bincount(chosen.flatten(), minlength=o.experts)
    share = load.float() / chosen.numel()
    loss = o.balance * o.experts * (share * probs.mean(0)).sum()
    loss = loss + o.zloss * torch.logsumexp(logits, -1).square().mean()
    return weight, chosen, load, loss


@torch.compiler.disable
def sort_tokens(chosen, load, o):
    """Lay the N * used (token, expert) pairs out in rows, the rows of an expert together.

    Returns, with pair = token * used + choice:
      order    the pair in each row; N * used in a row of padding
      token    the token in each row (any, for padding)
      inverse  the row of each pair
      ends     the row after the last one of each expert, padding included
    """
    n, used = chosen.shape
    align = 1 if o.experts_by == "loop" else o.align
    pairs = torch.argsort(chosen.flatten(), stable=True)
    room = torch.div(load + align - 1, align, rounding_mode="floor") * align
    if o.experts_by == "bmm":
        room = room.max().expand(o.experts)
    ends = room.cumsum(0)
    shift = (ends - room) - (load.cumsum(0) - load)
    row = torch.arange(n * used) + torch.repeat_interleave(shift, load)
    # As many rows whatever the loads, so that nothing is compiled twice.
    rows = int(ends[-1]) if o.experts_by == "bmm" else n * used + o.experts * (align - 1)
    order = torch.full((rows,), n * used)
    order[row] = pairs
    inverse = torch.empty_like(pairs)
    inverse[pairs] = row
    token = torch.div(order, used, rounding_mode="floor").clamp_(max=n - 1)
    return order, token, inverse, ends


# ---- the model -----------------------------------------------------------------

def parameters(o):
    g = torch.Generator().manual_seed(o.seed)

    def matrix(*shape):
        return (torch.randn(*shape, generator=g) * shape[-1] ** -0.5).requires_grad_()

    def ones(*shape):
        return torch.ones(*shape).requires_grad_()

    p = {"embd": (torch.randn(o.vocab, o.embd, generator=g) * 0.02).requires_grad_(),
         "norm": ones(o.embd)}
    for i in range(o.layers):
        p[f"{i}.attn_norm"] = ones(o.embd)
        p[f"{i}.qkv"] = matrix((o.heads + 2 * o.kv_heads) * o.head_dim, o.embd)
        p[f"{i}.q_norm"] = ones(o.head_dim)
        p[f"{i}.k_norm"] = ones(o.head_dim)
        p[f"{i}.attn_out"] = matrix(o.embd, o.heads * o.head_dim)
        p[f"{i}.ff_norm"] = ones(o.embd)
        if o.experts:
            p[f"{i}.router"] = matrix(o.experts, o.embd)
            p[f"{i}.ff_in"] = matrix(o.experts, 2 * o.ff, o.embd)
            p[f"{i}.ff_out"] = matrix(o.experts, o.embd, o.ff)
        else:
            p[f"{i}.ff_in"] = matrix(2 * o.ff, o.embd)
            p[f"{i}.ff_out"] = matrix(o.embd, o.ff)
    return p


def rope_tables(o):
    angle = torch.outer(torch.arange(o.context).float(),
                        o.rope_base ** (-torch.arange(0, o.head_dim, 2).float() / o.head_dim))
    return angle.cos()[:, None, :], angle.sin()[:, None, :]


class BlockAttention(Function):
    """Causal attention, a block of queries against the keys up to its end.

    The query heads that share a key head are stacked as rows, so each block is one
    batched matmul of ordinary size.  q [B*kv, group, T, d]; k, v [B*kv, T, d].
    """

    @staticmethod
    def forward(ctx, q, k, v, size):
        n, group, t, d = q.shape
        y = torch.empty_like(q)
        probs = []
        for lo in range(0, t, size):
            hi = min(lo + size, t)
            qb = q[:, :, lo:hi].reshape(n, -1, d)
            above = torch.arange(hi) > torch.arange(lo, hi)[:, None]
            bias = torch.zeros(hi - lo, hi).masked_fill_(above, float("-inf")).repeat(group, 1)
            prob = causal_softmax(torch.bmm(qb, k[:, :hi].transpose(1, 2)), bias, d ** -0.5)
            y[:, :, lo:hi] = torch.bmm(prob, v[:, :hi]).view(n, group, -1, d)
            probs.append(prob)
        ctx.save_for_backward(q, k, v, y, *probs)
        ctx.size = size
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        q, k, v, y, *probs = ctx.saved_tensors
        n, group, t, d = q.shape
        dq = torch.empty_like(q)
        dk = torch.zeros(k.shape, dtype=torch.float32)
        dv = torch.zeros(v.shape, dtype=torch.float32)
        for lo, prob in zip(range(0, t, ctx.size), probs):
            hi = min(lo + ctx.size, t)
            qb, yb, dyb = (x[:, :, lo:hi].reshape(n, -1, d) for x in (q, y, dy))
            dprob = torch.bmm(dyb, v[:, :hi].transpose(1, 2))
            ds = causal_softmax_back(prob, dprob, yb, dyb, d ** -0.5)
            dq[:, :, lo:hi] = torch.bmm(ds, k[:, :hi]).view(n, group, -1, d)
            dk[:, :hi] += torch.bmm(ds.transpose(1, 2), qb)
            dv[:, :hi] += torch.bmm(prob.transpose(1, 2), dyb)
        return dq, dk.to(k.dtype), dv.to(v.dtype), None


@torch.compiler.disable
def attend_blocks(q, k, v, size):
    b, t, heads, d = q.shape
    kv = k.shape[2]
    q = q.reshape(b, t, kv, heads // kv, d).permute(0, 2, 3, 1, 4).reshape(b * kv, -1, t, d)
    k, v = (x.transpose(1, 2).reshape(b * kv, t, d) for x in (k, v))
    y = BlockAttention.apply(q, k, v, size)
    return y.view(b, heads, t, d).transpose(1, 2).flatten(2)


def attend(q, k, v, o):
    """Causal grouped-query attention; q [B, T, heads, d], k and v [B, T, kv_heads, d]."""
    if o.attention == "blocks":
        return attend_blocks(q, k, v, o.attention_block)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    if o.attention == "sdpa":
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    else:
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
        t = q.shape[2]
        mask = torch.ones(t, t, dtype=torch.bool).tril()
        s = (q @ k.transpose(2, 3)).float() * q.shape[3] ** -0.5
        y = torch.softmax(s.masked_fill(~mask, float("-inf")), -1).to(v.dtype) @ v
    return y.transpose(1, 2).flatten(2)


def body(p, tokens, cos, sin, o, dtype):
    """Everything before the head: (final rows [N, embd] in dtype, the router losses)."""
    b, t = tokens.shape
    hq, hk = o.heads, o.kv_heads
    x = F.embedding(tokens, p["embd"])
    aux = torch.zeros(())
    for i in range(o.layers):
        w = {name: p[f"{i}.{name}"].to(dtype) for name in ("qkv", "attn_out", "ff_in", "ff_out")}
        y = rms_norm(x, p[f"{i}.attn_norm"], o.eps, dtype)
        qkv = F.linear(y, w["qkv"]).view(b, t, hq + 2 * hk, o.head_dim)
        weight = torch.cat((p[f"{i}.q_norm"].expand(hq, -1), p[f"{i}.k_norm"].expand(hk, -1)))
        qk, v = qkv.split((hq + hk, hk), 2)
        q, k = norm_and_rope(qk, weight, cos, sin, o.eps).split((hq, hk), 2)
        x = x + F.linear(attend(q, k, v, o), w["attn_out"])
        if o.experts:
            y = rms_norm(x, p[f"{i}.ff_norm"], o.eps, torch.float32).flatten(0, 1)
            weight, chosen, load, loss = route(y, p[f"{i}.router"], o)
            aux = aux + loss
            y = EXPERTS[o.experts_by](y.to(dtype), w["ff_in"], w["ff_out"], weight,
                                      sort_tokens(chosen, load, o))
            x = x + y.view_as(x)
        else:
            y = rms_norm(x, p[f"{i}.ff_norm"], o.eps, dtype)
            x = x + F.linear(swiglu(F.linear(y, w["ff_in"])), w["ff_out"])
    return rms_norm(x, p["norm"], o.eps, dtype).flatten(0, 1), aux


def make_loss(o):
    use_parts(o.compile == "parts")
    run = torch.compile(body) if o.compile == "model" else body
    cos, sin = rope_tables(o)
    dtype = torch.bfloat16 if o.dtype == "bf16" else torch.float32
    if o.compile == "model":        # the loss lies outside the compiled graph
        globals()["softmax_loss"] = torch.compile(PLAIN["softmax_loss"])
        globals()["swiglu_back"] = torch.compile(PLAIN["swiglu_back"], dynamic=True)
        for name in ("mix", "mix_back", "gather_sum"):
            globals()[name] = torch.compile(PLAIN[name])
        for name in ("causal_softmax", "causal_softmax_back"):
            globals()[name] = torch.compile(PLAIN[name], dynamic=True)

    def loss(p, tokens, target):
        x, aux = run(p, tokens, cos, sin, o, dtype)
        head = p["embd"].to(dtype)
        if o.ce_chunk:
            ce = HeadLoss.apply(x, head, target.flatten(), o.ce_chunk)
        else:
            ce = F.cross_entropy(F.linear(x, head).float(), target.flatten())
        return ce + aux

    return loss


class Optimiser:
    """Fused AdamW with gradient clipping; matrices decay, vectors do not."""

    def __init__(self, p, o):
        self.params = list(p.values())
        self.o = o
        self.adam = torch.optim.AdamW(
            [{"params": [t for t in self.params if t.dim() > 1], "weight_decay": o.decay},
             {"params": [t for t in self.params if t.dim() == 1], "weight_decay": 0.0}],
            lr=o.rate, betas=(0.9, 0.95), fused=True)

    def step(self):
        if self.o.clip_by == "norm":
            torch.nn.utils.clip_grad_norm_(self.params, self.o.clip, foreach=True)
        else:
            # The fused kernel divides the gradients by grad_scale while it reads them.
            norm = torch.nn.utils.get_total_norm([t.grad for t in self.params], foreach=True)
            self.adam.grad_scale = (norm / self.o.clip).clamp(min=1.0)
            self.adam.found_inf = None
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def batch(o, g):
    t = torch.randint(o.vocab, (o.sequences, o.context + 1), generator=g)
    return t[:, :-1].contiguous(), t[:, 1:].contiguous()


def matmul_flops(o):
    """Floating-point operations of the matmuls in one step: forward and twice that back."""
    d, hd = o.embd, o.head_dim
    layer = d * (o.heads + 2 * o.kv_heads) * hd + o.heads * hd * d
    layer += 2 * o.heads * hd * (o.context + 1) / 2          # causal attention
    layer += (o.used * 3 * d * o.ff + o.experts * d) if o.experts else 3 * d * o.ff
    return 6 * o.sequences * o.context * (o.layers * layer + o.vocab * d)


def set_up(o):
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(not o.no_flush_denormals)
    # Without AMX, oneDNN keeps f32 in f32 under this setting; it merely takes over from MKL.
    torch.backends.mkldnn.matmul.fp32_precision = (
        "bf16" if o.f32_matmul == "onednn" and o.dtype == "f32" else "ieee")


def measure(o):
    set_up(o)
    p = parameters(o)
    loss, optimiser = make_loss(o), Optimiser(p, o)
    g = torch.Generator().manual_seed(o.seed)

    def step():
        tokens, target = batch(o, g)
        start = time.perf_counter()
        value = loss(p, tokens, target)
        forward = time.perf_counter()
        value.backward()
        backward = time.perf_counter()
        optimiser.step()
        end = time.perf_counter()
        return end - start, forward - start, backward - forward, end - backward, value.item()

    start = time.perf_counter()
    warm = [step() for _ in range(o.warmup)]
    warm_seconds = time.perf_counter() - start
    runs = [step() for _ in range(o.steps)]
    median = [statistics.median(r[i] for r in runs) for i in range(4)]
    n = o.sequences * o.context
    print(json.dumps({
        "torch": torch.__version__, "dtype": o.dtype, "threads": torch.get_num_threads(),
        "experts_by": o.experts_by if o.experts else "dense", "compile": o.compile,
        "seconds_per_step": round(median[0], 4), "tokens_per_second": round(n / median[0], 1),
        "fastest": round(min(r[0] for r in runs), 4),
        "slowest": round(max(r[0] for r in runs), 4),
        "forward": round(median[1], 4), "backward": round(median[2], 4),
        "optimiser": round(median[3], 4), "steps": o.steps,
        "warmup_seconds": round(warm_seconds, 1),
        "tokens": n, "parameters": sum(t.numel() for t in p.values()),
        "gflops": round(matmul_flops(o) / median[0] / 1e9, 1),
        "losses": [round(r[4], 4) for r in warm + runs]}), flush=True)
    if o.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as prof:
            step()
        print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=40,
                                        max_name_column_width=50))


def check(o):
    """Gradients of every variant against those of plain eager autograd in the same dtype.

    In bf16 a rounding can change which expert comes second for a token, which moves
    gradients by more than the rounding does: hence the wide tolerance.
    """
    def gradients(**change):
        v = argparse.Namespace(**{**vars(o), **change})
        set_up(v)
        torch._dynamo.reset()
        p = parameters(v)
        tokens, target = batch(v, torch.Generator().manual_seed(v.seed))
        value = make_loss(v)(p, tokens, target)
        value.backward()
        return value.item(), {name: t.grad for name, t in p.items()}

    plain = dict(experts_by="loop", compile="none", attention="plain", ce_chunk=0,
                 f32_matmul="mkl", dtype="f32")
    good = True
    for dtype in ("f32", "bf16"):
        value, want = gradients(**{**plain, "dtype": dtype})
        print(f"{dtype:5}reference     loss {value:.6f}")
        for by in EXPERTS if o.experts else ("loop",):
            for how in o.check_compile.split(","):
                got_value, got = gradients(experts_by=by, compile=how, dtype=dtype)
                errors = {n: ((got[n] - want[n]).norm() / want[n].norm()).item() for n in want}
                worst = max(errors, key=errors.get)
                good &= errors[worst] < (1e-3 if dtype == "f32" else 0.1)
                print(f"{dtype:5}{by:8} {how:6} loss {got_value:.6f}  largest relative error "
                      f"of a gradient {errors[worst]:.1e} ({worst}), median "
                      f"{statistics.median(errors.values()):.1e}", flush=True)
    print("agree" if good else "DISAGREE")
    return 0 if good else 1


if __name__ == "__main__":
    if ARGS.check:
        sys.exit(check(ARGS))
    measure(ARGS)
