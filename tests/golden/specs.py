"""What the golden models are: one Spec for every architecture, shape and tensor type that the engine knows.

Owns the shapes, keys and prompts' seeds. make_models.py writes them.
"""
import dataclasses

from gguf import GGMLQuantizationType as Type

import blocks


@dataclasses.dataclass(frozen=True)
class Latent:
    """Sizes of attention through compressed keys and values (deepseek2)."""
    q_rank: int = 0               # 0: queries are not compressed
    kv_rank: int = 24
    nope: int = 16                # values of a query or key head that are not rotated
    rope: int = 8                 # and that are
    value: int = 12               # values of a value head
    absorbed: bool = False        # keys and values stay compressed: attn_k_b and attn_v_b for each head, one key/value head


@dataclasses.dataclass
class Spec:
    """One model. `kv` holds further keys without the architecture prefix; `factors` holds extra per-pair RoPE tensors."""
    name: str
    arch: str
    n_layer: int = 2
    n_embd: int = 64
    n_ff: int = 128
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 0             # 0: n_embd / n_head, and no key_length key
    n_vocab: int = 301
    vocab: str = "spm"            # spm | bpe
    n_ctx_train: int = 256
    eps: float = 1e-5
    rope_base: float = 10000.0    # 0: no key
    n_rot: int = 0                # 0: head_dim
    tied: bool = False
    qkv_bias: bool = False
    all_bias: bool = False        # also attention output and feed-forward biases (llama, granite)
    output_bias: bool = False     # qwen2
    rope_factors: str = ""        # "" | freqs | longrope
    weight_type: Type = Type.F32
    expert_type: Type = None      # of the experts' tensors; None: weight_type
    n_tokens: int = 40            # how long the test's prompt is
    seed: int = 0                 # of the prompt: one where no token stands between two experts
    n_expert: int = 0             # 0: one dense feed-forward
    n_used: int = 0               # experts of a token
    n_ff_exp: int = 0             # 0: no key, and each expert is as the architecture says without it
    n_ff_shared: int = 0          # 0: no shared expert
    n_dense_lead: int = 0         # first layers without experts
    selection_bias: bool = False  # exp_probs_b
    fused_gate_up: bool = False   # one tensor ffn_gate_up_exps (deepseek2)
    latent: Latent = None
    kv: dict = dataclasses.field(default_factory=dict)
    zeroed: tuple = ()            # names of tensors that are all zero: how a test takes a part out of the model

    @property
    def d_head(self):
        return self.head_dim or self.n_embd // self.n_head

    @property
    def rot(self):
        return self.n_rot or self.d_head

    @property
    def d_expert(self):
        """Hidden size of one expert."""
        by_default = self.n_ff // self.n_used if self.arch in ("qwen2moe", "qwen3moe") else self.n_ff
        return self.n_ff_exp or by_default

    @property
    def is_f32(self):
        return self.weight_type == Type.F32 and self.expert_type in (None, Type.F32)

    @property
    def varied(self):
        """Keys that can take another value without another tensor changing its shape."""
        used = {"expert_used_count": self.n_used} if self.n_expert and self.d_expert != self.n_ff // self.n_used else {}
        return {**self.kv, **used}


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
GRANITE = {"logit_scale": 6.0, "residual_scale": 0.22, "embedding_scale": 12.0, "attention.scale": 0.0625}
GEMMA2 = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention.sliding_window": 8}
GEMMA3 = {"attention.sliding_window": 8}
YARN_LATENT = {**YARN, "rope.scaling.yarn_log_multiplier": 0.0707}
DEEPSEEK = {"arch": "deepseek2", "vocab": "bpe", "n_vocab": 311}
SIGMOID = {"expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5}

F32_MODELS = [
    Spec("llama", "llama"),
    Spec("llama-mha-tied", "llama", n_head=4, n_head_kv=4, tied=True, n_vocab=320),
    Spec("llama-mqa-odd", "llama", n_embd=40, n_head=5, n_head_kv=1, n_ff=77, n_vocab=299, n_layer=3),
    Spec("llama-gqa4-head96", "llama", n_embd=64, n_head=8, n_head_kv=2, head_dim=96, n_ff=100),
    Spec("llama-head20", "llama", n_embd=48, n_head=6, n_head_kv=3, head_dim=20, n_ff=65, vocab="bpe", n_vocab=333),
    Spec("llama-head128", "llama", n_embd=32, n_head=2, n_head_kv=1, head_dim=128, n_ff=48),
    Spec("llama-biases", "llama", qkv_bias=True, all_bias=True),
    Spec("llama-long-prompt", "llama", n_tokens=150, n_layer=2),
    Spec("llama-long-context", "llama", n_tokens=1090, n_ctx_train=1200, rope_base=500000.0),
    Spec("llama3-rope", "llama", vocab="bpe", rope_base=500000.0, rope_factors="freqs", n_vocab=317),
    Spec("llama-linear-rope", "llama", kv={"rope.scaling.type": "linear", "rope.scaling.factor": 2.5}),
    Spec("llama-yarn", "llama", n_tokens=90, head_dim=32, kv=YARN),
    Spec("llama-longrope", "llama", rope_factors="longrope",
         kv={"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 16, "rope.scaling.attn_factor": 1.19}),
    Spec("mistral", "llama", n_head=8, n_head_kv=2, kv={"attention.sliding_window": 8}),
    Spec("qwen2", "qwen2", vocab="bpe", rope_base=1e6, eps=1e-6, qkv_bias=True, n_vocab=311),
    Spec("qwen2-tied-odd", "qwen2", vocab="bpe", n_embd=56, n_head=7, n_head_kv=1, n_ff=91, rope_base=1e6, eps=1e-6,
         qkv_bias=True, tied=True, n_vocab=343),
    Spec("qwen2-output-bias", "qwen2", vocab="bpe", qkv_bias=True, output_bias=True, n_vocab=311),
    Spec("qwen2-yarn", "qwen2", vocab="bpe", n_embd=128, n_tokens=90, qkv_bias=True, n_vocab=311, kv=YARN),
    Spec("qwen3", "qwen3", vocab="bpe", rope_base=1e6, eps=1e-6, head_dim=32, n_vocab=311),
    Spec("qwen3-tied-odd", "qwen3", vocab="bpe", n_embd=40, n_head=8, n_head_kv=2, head_dim=20, n_ff=61, tied=True,
         rope_base=1e6, eps=1e-6, n_vocab=333),
    Spec("gemma2", "gemma2", n_layer=7, head_dim=32, eps=1e-6, tied=True, kv=GEMMA2),
    Spec("gemma2-tight-caps", "gemma2", n_layer=4, n_head=8, n_head_kv=4, head_dim=20, n_ff=90, eps=1e-6, tied=True,
         kv={"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "attention.sliding_window": 5}),
    Spec("gemma2-27b-shape", "gemma2", n_layer=46, n_embd=40, n_head=4, head_dim=8, n_ff=48, eps=1e-6, tied=True,
         n_tokens=24, kv=GEMMA2),
    Spec("gemma3", "gemma3", n_layer=7, head_dim=32, n_head_kv=1, eps=1e-6, rope_base=1e6, tied=True, kv=GEMMA3),
    Spec("gemma3-linear-global", "gemma3", n_layer=7, n_head=8, head_dim=20, n_ff=75, eps=1e-6, rope_base=1e6, tied=True,
         kv={"attention.sliding_window": 6, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0,
             "final_logit_softcapping": 5.0}),
    Spec("gemma3-pattern", "gemma3", n_layer=4, head_dim=16, eps=1e-6, rope_base=1e6, n_vocab=310,
         kv={"attention.sliding_window": 4, "attention.sliding_window_pattern": [True, False, True, False],
             "rope.freq_base_swa": 20000.0}),
    Spec("gemma3-long-context", "gemma3", n_layer=3, n_head=8, head_dim=20, eps=1e-6, rope_base=1e6, tied=True, n_tokens=790,
         n_ctx_train=1000, kv={"attention.sliding_window": 600, "attention.sliding_window_pattern": [True, True, False]}),
    Spec("gemma3-27b-shape", "gemma3", n_layer=62, n_embd=40, n_head=4, head_dim=8, n_ff=48, eps=1e-6, rope_base=1e6,
         tied=True, n_tokens=24, kv=GEMMA3),
    Spec("phi3", "phi3", n_head=4, n_head_kv=4),
    Spec("phi3-partial-rope", "phi3", vocab="bpe", n_head=4, n_head_kv=2, n_rot=12, n_ff=90, n_vocab=311, tied=True),
    Spec("phi3-short", "phi3", rope_factors="longrope", n_head_kv=4,
         kv={"rope.scaling.original_context_length": 256, "rope.scaling.attn_factor": 1.19}),
    Spec("phi3-long", "phi3", rope_factors="longrope", n_rot=12,
         kv={"rope.scaling.original_context_length": 16, "rope.scaling.attn_factor": 1.19, "attention.sliding_window": 9}),
    Spec("granite", "granite", vocab="bpe", tied=True, n_vocab=311, kv=GRANITE),
    Spec("granite-biases", "granite", vocab="bpe", n_head=8, n_head_kv=2, n_ff=70, n_vocab=333, qkv_bias=True, all_bias=True,
         kv=GRANITE),
    Spec("granite-logit-scale-only", "granite", vocab="bpe", n_vocab=311, kv={"logit_scale": 3.0}),
    Spec("granite-no-rope", "granite", vocab="bpe", n_vocab=311, kv={**GRANITE, "rope.scaling.finetuned": False}),
    Spec("olmo2", "olmo2", vocab="bpe", eps=1e-6, rope_base=500000.0, n_vocab=311),
    Spec("olmo2-odd", "olmo2", vocab="bpe", n_embd=40, n_head=5, n_head_kv=5, n_ff=67, eps=1e-6, n_vocab=299),
    Spec("olmo3-window", "olmo2", vocab="bpe", n_layer=5, eps=1e-6, n_vocab=311, n_tokens=90, n_embd=128,
         kv={**YARN, "attention.sliding_window": 8}),
]

EXPERT_MODELS = [
    Spec("llama-moe", "llama", seed=35, n_expert=8, n_used=2),
    Spec("llama-moe-odd", "llama", n_layer=3, n_embd=40, n_head=5, n_head_kv=1, n_ff=37, n_vocab=299,
         seed=39, n_expert=5, n_used=3),
    Spec("llama-moe-biases", "llama", seed=31, n_expert=4, n_used=2, qkv_bias=True, all_bias=True, tied=True),
    Spec("llama-moe-one", "llama", n_expert=6, n_used=1),
    Spec("llama-moe-all", "llama", n_expert=4, n_used=4, rope_factors="freqs"),
    Spec("llama-moe-long-prompt", "llama", n_tokens=150, seed=19, n_expert=8, n_used=2),
    Spec("qwen2moe", "qwen2moe", vocab="bpe", rope_base=1e6, eps=1e-6, qkv_bias=True, n_vocab=311, seed=28, n_expert=8, n_used=3,
         n_ff_exp=48, n_ff_shared=80),
    Spec("qwen2moe-default-sizes", "qwen2moe", vocab="bpe", n_embd=56, n_head=7, n_head_kv=1, n_ff=90, n_vocab=343,
         qkv_bias=True, seed=6, n_expert=5, n_used=2),
    Spec("qwen3moe", "qwen3moe", vocab="bpe", rope_base=1e6, eps=1e-6, head_dim=32, n_vocab=311, seed=29, n_expert=8, n_used=3,
         n_ff_exp=48),
    Spec("qwen3moe-16", "qwen3moe", vocab="bpe", n_embd=40, n_head=8, n_head_kv=2, head_dim=20, n_ff=61, tied=True, eps=1e-6,
         n_vocab=333, n_tokens=24, seed=73, n_expert=16, n_used=8, n_ff_exp=21),
    Spec("olmoe", "olmoe", vocab="bpe", n_head_kv=4, n_ff=48, n_vocab=311, seed=36, n_expert=8, n_used=4),
    Spec("olmoe-odd", "olmoe", vocab="bpe", n_layer=3, n_embd=40, n_head=5, n_head_kv=5, n_ff=23, n_vocab=299,
         seed=38, n_expert=7, n_used=2),
    Spec("granitemoe", "granitemoe", vocab="bpe", tied=True, n_ff=48, n_vocab=311, seed=11, n_expert=8, n_used=3, kv=GRANITE),
    Spec("granitemoe-shared", "granitemoe", vocab="bpe", n_head=8, n_head_kv=2, n_ff=35, n_vocab=333, seed=36, n_expert=6, n_used=2,
         n_ff_shared=70, kv=GRANITE),
    Spec("ernie-moe", "ernie4_5-moe", n_layer=3, rope_base=500000.0, n_ff=96, n_vocab=310, seed=4, n_expert=8, n_used=3,
         n_ff_exp=40, n_ff_shared=80, n_dense_lead=1, selection_bias=True),
    Spec("ernie-moe-plain", "ernie4_5-moe", n_embd=40, n_head=5, n_head_kv=1, n_vocab=299, tied=True, qkv_bias=True, seed=28,
         n_expert=6, n_used=2, n_ff_exp=33),
    Spec("gpt-oss", "gpt-oss", vocab="bpe", n_layer=4, head_dim=32, n_vocab=311, n_tokens=90, rope_base=150000.0, qkv_bias=True,
         all_bias=True, seed=34, n_expert=8, n_used=3, n_ff_exp=64, kv={**YARN, "attention.sliding_window": 8}),
    Spec("gpt-oss-odd", "gpt-oss", vocab="bpe", n_layer=3, n_embd=40, n_head=8, n_head_kv=1, head_dim=20, n_vocab=333,
         all_bias=True, seed=1, n_expert=5, n_used=4, n_ff_exp=37,
         kv={"attention.sliding_window": 5, "rope.freq_base_swa": 500.0,
             "attention.sliding_window_pattern": [False, True, True]}),
    Spec("deepseek2-lite", **DEEPSEEK, n_layer=3, n_ff=96, seed=11, n_expert=8, n_used=3, n_ff_exp=40, n_ff_shared=80,
         n_dense_lead=1, latent=Latent(), kv={"expert_weights_scale": 1.5, "expert_weights_norm": False}),
    Spec("deepseek2-lite-shape", **DEEPSEEK, n_layer=27, n_embd=40, n_ff=48, n_tokens=16, n_expert=4, n_used=4, n_ff_exp=24,
         n_ff_shared=24, n_dense_lead=1, latent=Latent(kv_rank=20, nope=8, rope=4, value=8)),
    Spec("deepseek2-lite-absorbed", **DEEPSEEK, seed=2, n_expert=6, n_used=2, n_ff_exp=40, n_ff_shared=40, tied=True,
         latent=Latent(kv_rank=28, nope=20, rope=6, value=10, absorbed=True)),
    Spec("deepseek2-full", **DEEPSEEK, n_layer=3, n_head=6, n_ff=96, seed=20, n_expert=12, n_used=3, n_ff_exp=32, n_ff_shared=32,
         n_dense_lead=1, selection_bias=True, latent=Latent(q_rank=30, absorbed=True),
         kv={**SIGMOID, "expert_group_count": 4, "expert_group_used_count": 2}),
    Spec("deepseek2-full-expanded", **DEEPSEEK, seed=18, n_expert=8, n_used=2, n_ff_exp=32, n_ff_shared=64, selection_bias=True,
         fused_gate_up=True, latent=Latent(q_rank=20), kv=SIGMOID),
    Spec("deepseek2-yarn", **DEEPSEEK, n_tokens=90, seed=11, n_expert=6, n_used=2, n_ff_exp=32, n_ff_shared=32,
         latent=Latent(rope=32), kv=YARN_LATENT),
    Spec("deepseek2-yarn-absorbed", **DEEPSEEK, n_tokens=90, seed=23, n_expert=6, n_used=2, n_ff_exp=32, n_ff_shared=32,
         latent=Latent(q_rank=20, rope=32, absorbed=True),
         kv={**YARN_LATENT, **SIGMOID, "rope.scaling.yarn_log_multiplier": 0.1}),
    Spec("deepseek2-yarn-plain", **DEEPSEEK, n_tokens=90, seed=19, n_expert=4, n_used=2, n_ff_exp=32, n_ff_shared=32,
         latent=Latent(rope=32, absorbed=True), kv=YARN),
    Spec("deepseek2-linear-rope", **DEEPSEEK, seed=7, n_expert=4, n_used=2, n_ff_exp=32, n_ff_shared=32, latent=Latent(),
         kv={"rope.scaling.type": "linear", "rope.scaling.factor": 2.5}),
]

QUANT_TYPES = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M",
               "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
               "Q1_0", "Q2_0"]
EXPERT_QUANT_TYPES = {"F16": 36, "BF16": 27, "Q4_0": 1, "Q8_0": 39, "Q4_K": 30, "Q6_K": 42, "IQ4_XS": 27}  # with their seeds


def can_make(name):
    return name in Type.__members__ and blocks.can_make(Type[name])


QUANT_MODELS = [Spec(f"llama-{t.lower()}", "llama", n_embd=256, n_ff=512, n_head=8, n_head_kv=4, n_vocab=304, n_tokens=24,
                     weight_type=Type[t]) for t in QUANT_TYPES if can_make(t)]
QUANT_MODELS += [Spec(f"qwen3moe-{t.lower()}", "qwen3moe", vocab="bpe", n_embd=256, n_head=8, n_head_kv=4, n_vocab=304,
                      n_tokens=24, weight_type=Type[t], seed=seed, n_expert=6, n_used=2, n_ff_exp=256)
                 for t, seed in EXPERT_QUANT_TYPES.items() if can_make(t)]
QUANT_MODELS += [
    Spec("llama-moe-q4_k", "llama", n_embd=256, n_ff=256, n_head=8, n_head_kv=4, n_vocab=304, n_tokens=24, seed=54,
         weight_type=Type.Q6_K, expert_type=Type.Q4_K, n_expert=4, n_used=2),
    Spec("gpt-oss-mxfp4", "gpt-oss", vocab="bpe", n_embd=64, head_dim=32, n_vocab=311, n_tokens=24, qkv_bias=True, all_bias=True,
         weight_type=Type.Q8_0, expert_type=Type.MXFP4, seed=57, n_expert=6, n_used=2, n_ff_exp=96,
         kv={**YARN, "attention.sliding_window": 8}),
]
MODELS = {s.name: s for s in F32_MODELS + EXPERT_MODELS + QUANT_MODELS}
