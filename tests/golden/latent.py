"""Attention through compressed keys and values (multi-head latent attention, deepseek2) for the reference.

A token's keys and values come from one short vector, its latent [C], and one rotated piece of key [R] that all heads share.
Old files hold one matrix attn_kv_b that expands the latent into every head's key and value. New files hold it as two stacks, one
matrix per head: attn_k_b turns a query so that it meets the latent itself, attn_v_b expands the mixed latents. All heads then
read the same key (latent, rotated piece) and the same value (latent).
"""
import numpy as np


def is_latent(m, p):
    return p + "attn_kv_a_mqa.weight" in m.tensors


def is_absorbed(m, p):
    return p + "attn_k_b.weight" in m.tensors


def head_size(m):
    """Size of a query or key head before anything is absorbed: the part without rotation, then the rotated one."""
    return m.key("attention.key_length_mla", 0) or m.head_dim


def score_scale(m):
    """YaRN's growth of the scores stands here and not in the rotation when the file tells its multiplier."""
    multiplier, growth = m.key("rope.scaling.yarn_log_multiplier", 0.0), np.log(m.rope_factor)
    attn = m.key("rope.scaling.attn_factor", 1.0)
    if not (m.rope_kind == "yarn" and multiplier):
        attn = attn * (1 + 0.1 * growth)
    return (attn * (1 + multiplier * growth)) ** 2 / np.sqrt(head_size(m))


def each_head(run, x, name):
    """x [T, H, n_in] -> [T, H, n_out], every head with its own matrix of the stack."""
    return np.stack([run.linear(x[:, head], name, head) for head in range(x.shape[1])], axis=1)


def project(run, x, p, rotate):
    """q [T, H, D], k [T, G, D], v [T, G, D'] with their positions; `rotate` turns [T, heads, R]. G is 1 in the absorbed form."""
    m, n_tokens = run.m, len(x)
    rank, nope = m.key("attention.kv_lora_rank"), head_size(m) - m.n_rot
    if p + "attn_q_a.weight" in m.tensors:
        x_q = run.save(p + "q_latent", run.norm(run.linear(x, p + "attn_q_a"), p + "attn_q_a_norm"))
        q = run.linear(x_q, p + "attn_q_b")
    else:
        q = run.linear(x, p + "attn_q")
    q = run.save(p + "q", q.reshape(n_tokens, m.n_head, -1))
    latent, k_shared = np.split(run.linear(x, p + "attn_kv_a_mqa"), [rank], axis=-1)
    latent = run.save(p + "kv_latent", run.norm(latent, p + "attn_kv_a_norm"))
    q_turned = run.save(p + "q_rope", rotate(q[..., nope:]))
    k_shared = run.save(p + "k_rope", rotate(k_shared[:, None, :]))
    if is_absorbed(m, p):
        q_latent = run.save(p + "q_absorbed", each_head(run, q[..., :nope], p + "attn_k_b"))
        v = latent[:, None, :]
        return np.concatenate([q_latent, q_turned], axis=-1), np.concatenate([v, k_shared], axis=-1), v
    expanded = run.linear(latent, p + "attn_kv_b").reshape(n_tokens, m.n_head, -1)
    k, v = run.save(p + "k", expanded[..., :nope]), run.save(p + "v", expanded[..., nope:])
    k = np.concatenate([k, np.repeat(k_shared, m.n_head, axis=1)], axis=-1)
    return np.concatenate([q[..., :nope], q_turned], axis=-1), k, v


def expand(run, mixed, p):
    """Mixed latents [T, H, C] -> values [T, H, D'] where the file is absorbed; else they are values already."""
    return each_head(run, mixed, p + "attn_v_b") if is_absorbed(run.m, p) else mixed
