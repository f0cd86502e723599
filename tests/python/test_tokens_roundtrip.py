"""decode(encode(x)) == x: real Turkish and English text, 10,000 random strings, raw bytes, and texts made to be slow."""
import os
import random
import sys
import time

import tokens_cases as tc

HEAVY = [b" " * 1000000, b"a" * 1000000, b"\n" * 300000, "ş".encode() * 200000, "👍🏽".encode() * 50000, b"0" * 300000, b"aB" * 200000,
         b"'" * 300000, b" x" * 200000, b"\xff" * 200000, b"\0" * 200000, b"\xe2\x96\x81" * 100000, b"<" * 300000, b"\t \n" * 100000]
# Vocabularies whose tables hold every byte once, so that any bytes come back.
BYTE_EXACT = ("gpt-2", "llama-bpe", "qwen2", "gemma3", "llama-spm", "gemma-4")


def round_trip(model, title, texts):
    answers = tc.ask(model, texts, "roundtrip")
    wrong = [(t, a) for t, a in zip(texts, answers) if a != "ok"]
    for text, answer in wrong[:5]:
        print(f"{title}: {text[:80]!r}: {answer}")
    print(f"{title}: {len(texts) - len(wrong)} of {len(texts)} come back")
    return len(wrong) + (len(answers) != len(texts))


def that_can_return(name, texts):
    """Some vocabularies were never shown every byte; SentencePiece's space mark comes back as the space it stands for."""
    if name in ("gemma3", "gemma-4", "llama-spm", "phi-3"):
        return [t for t in texts if b"\xe2\x96\x81" not in as_bytes(t)]
    if name in BYTE_EXACT:
        return texts
    lost = set(range(32)) - set(b"\n\t\r") | {0x7F, 0xF1, 0xF2, 0xF4, 0xFF}
    return [t for t in texts if not lost & set(as_bytes(t))]


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def main():
    models = tc.real_models()
    if tc.llama_cpp():
        models += [os.path.join(tc.llama_cpp(), "models", f"ggml-vocab-{name}.gguf") for name in
                   ("gpt-2", "llama-bpe", "qwen2", "llama-spm", "phi-3", "gemma-4", "falcon", "mpt")]
    if not models:
        tc.skip("no model in the data directory and no DIL_LLAMA_CPP")
    rng = random.Random(7)
    garbage = [bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60))) for _ in range(1000)]
    texts = tc.cases(10000)
    bad = 0
    for model in models:
        name = os.path.basename(model).replace("ggml-vocab-", "").replace(".gguf", "")
        bad += round_trip(model, f"{name}, random", that_can_return(name, texts))
        if name in BYTE_EXACT:
            bad += round_trip(model, f"{name}, bytes", garbage)
        for file in ("turkish_sentences.txt", "pud.tr", "wiki.test.raw"):
            if tc.shared(file):
                with open(tc.shared(file), "rb") as f:
                    bad += round_trip(model, f"{name}, {file}", [f.read()])
        start = time.time()
        bad += round_trip(model, f"{name}, heavy", that_can_return(name, HEAVY))
        print(f"{name}: heavy texts in {time.time() - start:.1f} s")
    return bad != 0


sys.exit(main())
