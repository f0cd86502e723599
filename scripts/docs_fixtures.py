"""The files that the documents' commands speak of (wiki.txt, model-f16.gguf, ...), made from generated text, the models of the tree and
two small ones that are trained on the spot. Texts are as long as the commands need and no longer; the same every time."""

import functools
import json
import random
import re
import struct

WORDS = {
    "en": "the of and a bird flock river city that which saw took wrote small large old river winter village music answer "
    "number question letter window story evening neighbour machine memory language model because between after".split(),
    "tr": "bir ve bu kuş sürü ırmak kent büyük küçük eski kış köy müzik yanıt sayı soru mektup pencere öykü akşam komşu "
    "makine bellek dil model çünkü arasında sonra gördü yazdı geldi söyledi".split(),
}
SYLLABLES = {
    "en": "ba con der est for ing lo mer ning or pre qui ran stel tion un ver wil yet thor".split(),
    "tr": "ba çi dör ek fı gül ha ışı ka lem mü ne öz par rü sı şen tan ül yol".split(),
}


def lexicon(language, n_more):
    """The words above and n_more made-up ones, for texts that a vocabulary of thousands can be learnt from."""
    rng = random.Random(language)
    more = ("".join(rng.choices(SYLLABLES[language], k=rng.randint(2, 5))) for _ in range(n_more))
    return [*WORDS[language], *more]


def text(language, size, seed, n_more=0):
    """About `size` bytes of sentences; words follow a law like that of real texts, a few often and most seldom."""
    rng, words, out, n = random.Random(seed), lexicon(language, n_more), [], 0
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


def config(n_experts):
    """A run of some seconds: two layers, wide enough for every number format."""
    sizes = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
    return {
        "name": "fixture",
        "output": "run",
        "seed": 1,
        "tokenizer": {"size": 400},
        "corpora": [{"name": "en", "path": "en.txt", "weight": 1, "held_out": 0.05}],
        "model": {
            "architecture": "qwen3moe" if n_experts else "qwen3",
            "context_length": 512,
            "hidden_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "num_experts": n_experts,
            **(sizes if n_experts else {"intermediate_size": 512}),
        },
        "training": {"steps": 20, "batch_size": 2, "evaluate_every": 20, "evaluate_sequences": 2},
    }


class Fixtures:
    """root: the tree; room: where trained models are kept; run: (command, folder) -> (exit code, output)."""

    LINKS = {
        **dict.fromkeys(["model.gguf", "reference.gguf", "quantized.gguf"], "sigircik-dense"),
        **dict.fromkeys(["a.gguf", "b.gguf", "f16.gguf", "q4.gguf", "small.gguf"], "sigircik-dense"),
        **dict.fromkeys(["big-moe.gguf", "other.gguf"], "sigircik-moe"),
    }
    TRAINED = {
        **dict.fromkeys(["model-f16.gguf", "any.gguf", "in.gguf", "dense.gguf", "big.gguf"], 0),
        "moe.gguf": 8,
    }
    REPORTS = {"q3.json": 3.5, "q4.json": 4.5, "q6.json": 6.5}  # bits per weight
    BYTES = {
        "prompts.txt": lambda: "".join(text("en", 40, i).split("\n")[0] + "\n" for i in range(8)),
        "q3.txt": lambda: "".join(text("en", 90, i).split("\n")[0] + "\n" for i in range(8)),
        "question.txt": lambda: "Name three rivers.\n",
        "text.txt": lambda: text("en", 6000, 1),
        "notes.txt": lambda: text("en", 2000, 2),
        "wiki.txt": lambda: text("en", 9000, 3),
        "held-out.txt": lambda: text("en", 9000, 4),
        "book.txt": lambda: text("en", 6000, 5),
        "english.txt": lambda: text("en", 6000, 6),
        "turkish.txt": lambda: text("tr", 6000, 7),
        "wiki.test.raw": lambda: text("en", 20000, 8),
        "hellaswag.txt": lambda: hellaswag(40),
        "en.txt.zst": lambda: zstandard(text("en", 400000, 9, 6000).encode()),
        "tr.txt.zst": lambda: zstandard(text("tr", 400000, 10, 6000).encode()),
        "runs/swarm/metrics.csv": metrics,
        "runs/plain/metrics.csv": metrics,
        "stories15M.bin": llama2c_checkpoint,
        "tokenizer.bin": llama2c_tokenizer,
    }

    def __init__(self, root, room, run):
        self.root, self.room, self.run = root, room, run

    @functools.cache
    def trained(self, n_experts):
        folder = self.room / f"fixture-{n_experts}"
        folder.mkdir()
        (folder / "en.txt").write_text(text("en", 100000, 11), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(config(n_experts)), encoding="utf-8")
        command = "dil train config.json -q && dil export run/checkpoint.bin model.gguf -q"
        code, output = self.run(["bash", "-c", command], folder)
        if code != 0:
            raise RuntimeError(f"the fixture model could not be trained: {output}")
        return folder / "model.gguf"

    def report(self, bits):
        folder = self.trained(0).parent
        (folder / "calibration.txt").write_bytes(self.BYTES["wiki.txt"]().encode())
        command = f"dil quantize model.gguf q.gguf --bpw {bits} --calib calibration.txt --fast --chunks 2 -c 64 --report q.json -q"
        code, output = self.run(["bash", "-c", command], folder)
        if code != 0:
            raise RuntimeError(f"the fixture report could not be made: {output}")
        return (folder / "q.json").read_bytes()

    def provide(self, command, folder):
        """Makes the files that a command names and that are not there yet."""
        for name in [*self.LINKS, *self.TRAINED, *self.REPORTS, *self.BYTES]:
            path = folder / name
            named = re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])", command)
            if not named or path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in self.LINKS:
                path.symlink_to(self.root / f"models/{self.LINKS[name]}.gguf")
            elif name in self.TRAINED:
                path.write_bytes(self.trained(self.TRAINED[name]).read_bytes())
            elif name in self.REPORTS:
                path.write_bytes(self.report(self.REPORTS[name]))
            else:
                data = self.BYTES[name]()
                path.write_bytes(data if isinstance(data, bytes) else data.encode())
