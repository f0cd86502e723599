"""Mixtures of experts for the reference: which experts a token takes, how much each one counts, and what they compute.

Shapes use T tokens, E embedding, X experts, K experts of a token. Every stage is a named step of the pass.
Owns routing and the sum over experts. Does not own what one feed-forward computes (reference.py).
"""
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Routing:
    """How router logits become the weights of the chosen experts."""
    gate: str          # softmax | sigmoid of all logits | chosen: softmax of the chosen experts' logits only
    normalised: bool   # the chosen experts' weights are divided by their sum
    scale: float = 0.0  # and multiplied by this; 0: not


ROUTING = {
    "llama": Routing("softmax", True),
    "qwen2moe": Routing("softmax", False),
    "qwen3moe": Routing("softmax", True),
    "olmoe": Routing("softmax", False),
    "granitemoe": Routing("softmax", True),
    "ernie4_5-moe": Routing("softmax", True),
    "gpt-oss": Routing("chosen", False),
}
GATING_KEY = {0: "softmax", 1: "softmax", 2: "sigmoid", 3: "chosen"}
LEAST_SUM = 6.103515625e-5  # the smallest normal f16: weights are not divided by less


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def routing(m):
    """deepseek2 says in its keys how it routes, the others are always the same."""
    return ROUTING.get(m.arch) or Routing(GATING_KEY[m.key("expert_gating_func", 0)], m.key("expert_weights_norm", False),
                                          m.key("expert_weights_scale", 0.0))


GATES = {"softmax": softmax, "sigmoid": sigmoid, "chosen": lambda logits: logits}


def top(values, k):
    """Indices of the k largest of the last axis, largest first, of equals the lowest index first; and the distance from the
    k-th to the next one (infinite when there is none)."""
    order = np.argsort(-values, axis=-1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=-1)
    distance = ranked[..., k - 1] - ranked[..., k] if k < values.shape[-1] else np.full(values.shape[:-1], np.inf)
    return order[..., :k], distance


def keep_best_groups(m, scores):
    """Scores [T, X] with -inf outside the groups whose two best experts have the largest sums; and the distance between groups."""
    n_group = m.key("expert_group_count", 0)
    if n_group <= 1:
        return scores, np.full(len(scores), np.inf)
    grouped = scores.reshape(len(scores), n_group, -1)
    strength = np.sort(grouped, axis=-1)[..., -2:].sum(axis=-1)
    chosen, distance = top(strength, m.key("expert_group_used_count"))
    kept = np.zeros(strength.shape, dtype=bool)
    np.put_along_axis(kept, chosen, True, axis=-1)
    return np.where(kept[..., None], grouped, -np.inf).reshape(scores.shape), distance


def route(run, x, p):
    """Chosen experts [T, K] and their weights [T, K] for x [T, E]."""
    m, how = run.m, routing(run.m)
    logits = run.save(p + "router_logits", run.linear(x, p + "ffn_gate_inp"))
    gates = run.save(p + "router_gates", GATES[how.gate](logits))
    scores, between_groups = keep_best_groups(m, gates + m.get(p + "exp_probs_b.bias", 0))
    chosen, between_experts = top(scores, m.key("expert_used_count"))
    run.save(p + "router_gap", np.minimum(between_groups, between_experts))
    run.save(p + "experts", chosen)
    weights = np.take_along_axis(gates, chosen, axis=-1)
    if how.gate == "chosen":
        weights = softmax(weights)
    if how.normalised:
        weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), m.dtype(LEAST_SUM))
    if how.scale:
        weights = weights * m.dtype(how.scale)
    return chosen, run.save(p + "expert_weights", weights)


def feed_forward(run, x, p):
    """The weighted sum of each token's experts, and the shared expert where there is one: [T, E]."""
    m = run.m
    chosen, weights = route(run, x, p)
    down = np.zeros((*chosen.shape, x.shape[-1]), dtype=x.dtype)  # [T, K, E]
    for expert in np.unique(chosen):
        token, place = np.nonzero(chosen == expert)
        down[token, place] = run.gated(x[token], p, "_exps", expert)
    run.save(p + "experts_down", down)
    out = run.save(p + "experts_out", (down * weights[..., None]).sum(axis=1))
    if p + "ffn_down_shexp.weight" in m.tensors:
        shared = run.save(p + "shared_down", run.gated(x, p, "_shexp"))
        if p + "ffn_gate_inp_shexp.weight" in m.tensors:
            shared = shared * run.save(p + "shared_gate", sigmoid(run.linear(x, p + "ffn_gate_inp_shexp")))[:, None]
        out = out + run.save(p + "shared_out", shared)
    return run.save(p + "ffn_out", out)
