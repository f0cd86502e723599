"""The files that the documents' commands speak of (wiki.txt, model-f16.gguf, ...), made from generated text and the models of the
tree. Texts are long enough for what the commands ask of them and no longer; the same every time."""

import random
import re
import struct

WORDS = {
    "en": "the of and a bird flock river city that which saw took wrote small large old river winter village music answer "
    "number question letter window story evening neighbour machine memory language model because between after".split(),
    "tr": "bir ve bu kuş sürü ırmak kent büyük küçük eski kış köy müzik yanıt sayı soru mektup pencere öykü akşam komşu "
    "makine bellek dil model çünkü arasında sonra gördü yazdı geldi söyledi".split(),
}


def text(language, size, seed):
    """About `size` bytes of sentences; words follow a law like that of real texts, a few often and most seldom."""
    rng, words, out, n = random.Random(seed), WORDS[language], [], 0
    shares = [1 / (rank + 2) for rank in range(len(words))]
    while n < size:
        line = " ".join(rng.choices(words, shares, k=rng.randint(5, 14)))
        out.append(line.capitalize() + "." + ("\n" if rng.random() < 0.2 else " "))
        n += len(out[-1].encode())
    return "".join(out).strip() + "\n"


def zstandard(data):
    """A Zstandard frame of stored blocks (RFC 8878): no compressor is needed to write one."""
    out = b"\x28\xb5\x2f\xfd\x80\x58" + struct.pack("<I", len(data))
    size = 1 << 16
    for at in range(0, len(data), size):
        block = data[at : at + size]
        last = at + size >= len(data)
        out += struct.pack("<I", last | len(block) << 3)[:3] + block
    return out


def hellaswag(n):
    """Six lines a task: context, number of the right ending, four endings."""
    tasks = []
    for i in range(n):
        endings = [text("en", 30, 10 * i + k).split("\n")[0] for k in range(4)]
        tasks.append("\n".join([text("en", 80, 7 * i).split("\n")[0], str(i % 4), *endings]))
    return "\n".join(tasks) + "\n"


def metrics():
    """A training run's log: a loss that falls."""
    rows = [f"{i},{9 - i / 10:.2f},{1.5 + 4 / (i + 1):.3f}" for i in range(1, 41)]
    return "step,ce,bpb_en\n" + "\n".join(rows) + "\n"


DIM, HIDDEN, LAYERS, HEADS, VOCABULARY, SEQUENCE = 32, 64, 2, 4, 288, 64


def llama2c_checkpoint():
    """Seven numbers, then the weights: random ones."""
    per_layer = 2 * DIM + 4 * DIM * DIM + 3 * DIM * HIDDEN
    n = VOCABULARY * DIM + LAYERS * per_layer + DIM + SEQUENCE * (DIM // HEADS)
    rng = random.Random(1)
    header = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, HEADS, VOCABULARY, SEQUENCE)
    return header + struct.pack(f"<{n}f", *(rng.gauss(0, 0.1) for _ in range(n)))


def llama2c_tokenizer():
    tokens = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{i:02X}>" for i in range(256)), " "]
    tokens += [chr(ord("a") + i) for i in range(VOCABULARY - len(tokens))]
    out = struct.pack("<i", max(len(t) for t in tokens))
    for i, token in enumerate(tokens):
        out += struct.pack("<fi", -float(i), len(token)) + token.encode()
    return out


# What the names of the documents stand for: a link to a file of the tree, or bytes.
DENSE, EXPERTS = "models/sigircik-dense.gguf", "models/sigircik-moe.gguf"
LINKS = {
    **dict.fromkeys(["model.gguf", "reference.gguf", "a.gguf", "b.gguf", "in.gguf", "dense.gguf"], DENSE),
    **dict.fromkeys(["model-f16.gguf", "any.gguf", "big.gguf"], DENSE),
    **dict.fromkeys(["big-moe.gguf", "moe.gguf", "other.gguf"], EXPERTS),
}
BYTES = {
    "question.txt": lambda: "Name three rivers.\n",
    "text.txt": lambda: text("en", 6000, 1),
    "notes.txt": lambda: text("en", 2000, 2),
    "wiki.txt": lambda: text("en", 9000, 3),
    "other.txt": lambda: text("en", 9000, 4),
    "book.txt": lambda: text("en", 6000, 5),
    "english.txt": lambda: text("en", 6000, 6),
    "turkish.txt": lambda: text("tr", 6000, 7),
    "wiki.test.raw": lambda: text("en", 60000, 8),
    "hellaswag.txt": lambda: hellaswag(40),
    "en.txt.zst": lambda: zstandard(text("en", 300000, 9).encode()),
    "tr.txt.zst": lambda: zstandard(text("tr", 300000, 10).encode()),
    "runs/swarm/metrics.csv": metrics,
    "runs/plain/metrics.csv": metrics,
    "stories15M.bin": llama2c_checkpoint,
    "tokenizer.bin": llama2c_tokenizer,
}


def provide(command, folder, root):
    """Makes the files that a command names and that are not there yet."""
    for name in [*LINKS, *BYTES]:
        path = folder / name
        if path.exists() or not re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])", command):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in LINKS:
            path.symlink_to(root / LINKS[name])
        else:
            data = BYTES[name]()
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
