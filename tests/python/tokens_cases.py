"""Texts that tokenisers get wrong, random and deliberate, the same for every run; and the way to ask tool_tokens."""
import os
import random
import struct
import subprocess
import sys
import unicodedata

TURKISH = """İstanbul'un ışıkları ILIK bir gecede parlıyordu. Çekoslovakyalılaştıramadıklarımızdanmışsınızcasına
muvaffakiyetsizleştiricileştiriveremeyebileceklerimizdenmişsinizcesine ağaç öğretmen şoför üzüm ığdır İĞNE iğne
Türkiye'nin 81 ili 3.14 1.000.000,50 TL'ye 2'ye 19'uncu Şubat'ta âlim rüzgâr hâlâ dİKKAT""".split()
ENGLISH = """The don't I'LL we've they'RE it's O'Neil's x'd 's 'S 'LL'll camelCaseWord HTTPServer snake_case naïve
café résumé Ångström 0x1F 1e-10 C++ #include <stdio.h> int main(void){return 0;} print("hi") https://a.b/c?d=e&f=g""".split()
EMOJI = ["😀", "👨‍👩‍👧‍👦", "🇹🇷", "👍🏽", "🏳️‍🌈", "❤️", "☕", "🤷🏿‍♂️", "1️⃣", "\U0001fae0"]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2009", "\u0085", "\u180e", "\u200b", "\u2028",
          "\u2029", "\u202f", "\u205f", "\u1680", "\v", "\f", " \n ", "\n \n", "    \n", "\ufeff", "\x1c", "\x1f"]
ODD = ["\0", "\x01", "\x7f", "'ſ", "K", "ﬁ", "ß", "ẞ", "ǅ", "ʰ", "Ⅷ", "½", "²", "①", "٣", "१२३", "一二三", "日本語テキスト", "한국어",
       "ไทย", "ภาษาไทย", "हिन्दी", "தமிழ்", "עִבְרִית", "العربية", "é", "e\u0301", "\u0301", "\u0483\u0488", "ᾳ", "ﷺ", "\ufffd", "\ufffe",
       "\U000e0041", "\U0010ffff", "▁", "▁▁a", "Ġ", "Ċ", "<0x41>", "<|im_start|>", "<s>", "</s>", "<eos>", "<unk>", "[PAD]", "<",
       "123456789", "1234567", "12 345", "0001", "....", "!!!", "?!", "__init__", "/* */", "---", "``", "''", "\"'", "$+<=>^~|`"]


def assigned(rng):
    while True:
        code = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000), rng.randrange(0x20000)])
        if unicodedata.category(chr(code)) not in ("Cn", "Cs"):
            return chr(code)


def one(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return "".join(assigned(rng) for _ in range(rng.randrange(1, 30)))
    if kind == 1:
        return " ".join(rng.choice(TURKISH) for _ in range(rng.randrange(1, 12)))
    if kind == 2:
        return " ".join(rng.choice(ENGLISH) for _ in range(rng.randrange(1, 12)))
    if kind == 3:
        return "".join(rng.choice(EMOJI + SPACES) for _ in range(rng.randrange(1, 12)))
    if kind == 4:
        return "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 8))) + rng.choice(TURKISH + ODD)
    if kind == 5:
        return rng.choice(ODD + EMOJI + [assigned(rng)]) * rng.randrange(1, 70)
    pool = rng.choice([TURKISH + SPACES + ODD, ENGLISH + SPACES + ODD, TURKISH + ENGLISH + EMOJI + SPACES + ODD])
    return "".join(rng.choice(pool) for _ in range(rng.randrange(1, 20)))


def cases(count, seed=1923):
    rng = random.Random(seed)
    return [one(rng) for _ in range(count)]


def tool():
    path = os.path.join(os.environ.get("DIL_BUILD_DIR", "build"), "bin", "tool_tokens")
    if not os.path.exists(path):
        skip(f"no {path}")
    return path


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def frames(texts):
    parts = [t if isinstance(t, bytes) else t.encode() for t in texts]
    return b"".join(struct.pack("<I", len(p)) + p for p in parts)


def ask(model, texts, *words):
    """One line of answer per text."""
    run = subprocess.run([tool(), model, *words], input=frames(texts), capture_output=True)
    if run.returncode:
        raise SystemExit(f"tool_tokens {model} {' '.join(words)}: {run.stderr.decode()}")
    return run.stdout.decode().split("\n")[:-1]


def encode(model, texts, *words):
    return [[int(i) for i in line.split()] for line in ask(model, texts, "encode", *words)]


def llama_cpp():
    """A source tree of llama.cpp, for its vocabularies and expected ids."""
    path = os.environ.get("DIL_LLAMA_CPP", "")
    return path if path and os.path.isdir(os.path.join(path, "models")) else None


def data_dir():
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(home, "dilmodeli")


def real_models():
    paths = [os.path.join(data_dir(), name) for name in ("smollm2.gguf", "gemma3.gguf")]
    return [p for p in paths if os.path.exists(p)]


def shared(name):
    base = os.environ.get("DIL_SHARED") or os.path.join(os.environ.get("DIL_SOURCE_DIR", "."), "..", "shared")
    path = os.path.join(base, "data", name)
    return path if os.path.exists(path) else None


def report(title, texts, got, wanted):
    """Prints the first differences; returns their number."""
    bad = 0
    if len(got) != len(wanted):
        print(f"{title}: {len(got)} answers for {len(wanted)} texts")
        return 1
    for text, g, w in zip(texts, got, wanted):
        if g != w:
            bad += 1
            if bad <= 5:
                print(f"{title}: {text[:120]!r}\n  wanted {w[:40]}\n  found  {g[:40]}")
    print(f"{title}: {len(texts) - bad} of {len(texts)} equal")
    return bad
