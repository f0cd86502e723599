"""Logits of another engine for the golden models, as far as this machine has one.

$DIL_PEER_LOGITS may name a program that runs as `PROGRAM -m MODEL --tokens 1,2,3 --kv f32 -c CTX -o OUT.npy` and writes float32
[n_tokens, n_vocab]; otherwise PyPI llama-cpp-python (llama.cpp) is used when it can be imported.
"""
import ctypes
import os
import subprocess
import tempfile

import numpy as np


def from_program(program, model, tokens, n_ctx, kv):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits.npy")
        ids = ",".join(map(str, tokens))
        subprocess.run([program, "-m", model, "--tokens", ids, "--kv", kv, "-c", str(n_ctx), "-o", out], check=True,
                       stdout=subprocess.DEVNULL)
        return np.load(out)


def from_llama_cpp(llama_cpp, model, tokens, n_ctx, kv):
    """Flash attention off and, for kv 'f32', an F32 cache: llama.cpp at its most exact."""
    kv_type = {"f32": 0, "f16": 1}[kv]
    llm = llama_cpp.Llama(model_path=model, n_ctx=n_ctx, n_batch=max(32, len(tokens)), n_gpu_layers=0, logits_all=True,
                          type_k=kv_type, type_v=kv_type, flash_attn=False, verbose=False)
    llm.eval(list(tokens))
    n_vocab = llm.n_vocab()
    rows = [np.ctypeslib.as_array(ctypes.cast(llama_cpp.llama_get_logits_ith(llm.ctx, i), ctypes.POINTER(ctypes.c_float)),
                                  (n_vocab,)).copy() for i in range(len(tokens))]
    llm.close()
    return np.stack(rows)


def find():
    """A function (model, tokens, n_ctx, kv) -> logits, or None when the machine has no peer."""
    program = os.environ.get("DIL_PEER_LOGITS")
    if program:
        return lambda *args: from_program(program, *args)
    try:
        import llama_cpp
    except ImportError:
        return None
    return lambda *args: from_llama_cpp(llama_cpp, *args)
