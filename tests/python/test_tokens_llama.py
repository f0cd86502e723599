"""Against llama.cpp: the expected ids it ships beside its vocabularies (DIL_LLAMA_CPP names its source tree), and
llama-tokenize (build/bin there, or on PATH) on the real models and on texts full of special tokens."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

import tokens_cases as tc


def expected_files(root):
    bad = 0
    for out in sorted(glob.glob(os.path.join(root, "models", "ggml-vocab-*.gguf.out"))):
        vocabulary = out[: -len(".out")]
        with open(vocabulary + ".inp", encoding="utf-8", newline="") as file:
            texts = file.read().split("\n__ggml_vocab_test__\n")
        with open(out, encoding="utf-8") as file:
            wanted = [[int(i) for i in line.split()] for line in file.read().split("\n")]
        # The last line is empty when the last text is.
        wanted = wanted[: len(texts)]
        bad += tc.report(os.path.basename(vocabulary), texts, tc.encode(vocabulary, texts), wanted)
    return bad


def llama_tokenize(program, model, text, special):
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(text)
        file.flush()
        run = subprocess.run([program, "-m", model, "-f", file.name, "--ids", "--log-disable"] + ([] if special else ["--no-bos"]),
                             capture_output=True, check=True)
    line = run.stdout.decode()
    return [int(i) for i in line[line.rindex("[") + 1 : line.rindex("]")].split(",") if i.strip()]


SPECIAL = ["<|im_start|>user\nMerhaba<|im_end|>\n<|im_start|>assistant\n", "<bos><start_of_turn>user\nSelam!<end_of_turn>\n",
           "a<|im_end|>b<|endoftext|><|im_start|>", "<|im_start|", "x <|im_end|> y", "<|im_end|><|im_end|>",
           "<table><tr><td>1</td></tr></table>", "a\n\n\n\nb\n\n", "\n" * 100 + "x", " " * 100 + "x", "x" + " " * 33, "\t" * 40,
           "<unused0><unused12> <eos>", "<s>a</s>", "<unk>"]


def with_program(root):
    program = os.path.join(root, "build", "bin", "llama-tokenize") if root else ""
    program = program if os.path.exists(program) else shutil.which("llama-tokenize")
    models = tc.real_models()
    if not program or not models:
        print("no llama-tokenize or no model: comparison with the program is left out")
        return 0
    # The program drops what is no UTF-8, a 'ſ contraction and bytes SmolLM never saw differently; one text per line group.
    clean = [t for t in tc.cases(1500) if "\u017f" not in t and not any(c < " " and c not in "\n\t" or c == "\x7f" for c in t)]
    groups = ["".join(clean[i::3]) for i in range(3)] + SPECIAL
    for name in ("wiki.test.raw", "turkish_sentences.txt", "pud.tr"):
        if tc.shared(name):
            with open(tc.shared(name), encoding="utf-8", newline="") as file:
                groups.append(file.read())
    bad = 0
    for model in models:
        for words, special in ((("parse",), False), (("parse", "special"), True)):
            texts = groups if special else groups[:5]
            wanted = [llama_tokenize(program, model, t.encode(), special) for t in texts]
            bad += tc.report(f"llama-tokenize {os.path.basename(model)} {' '.join(words)}", texts, tc.encode(model, texts, *words), wanted)
    return bad


def other_kinds(root):
    """Vocabularies without a model: WordPiece and unigram, on real text and on random texts."""
    program = os.path.join(root, "build", "bin", "llama-tokenize")
    if not os.path.exists(program):
        return 0
    texts = ["".join(t for t in tc.cases(400) if "\0" not in t).strip()]
    for name in ("wiki.test.raw", "pud.tr"):
        if tc.shared(name):
            with open(tc.shared(name), encoding="utf-8", newline="") as file:
                texts.append(file.read()[:60000])
    bad = 0
    for name, some in (("nomic-bert-moe", texts), ("bert-bge", texts[1:])):  # BERT proper drops what llama.cpp keeps
        model = os.path.join(root, "models", f"ggml-vocab-{name}.gguf")
        wanted = [llama_tokenize(program, model, t.encode(), True) for t in some]
        bad += tc.report(f"llama-tokenize {name}", some, tc.encode(model, some, "parse", "special"), wanted)
    return bad


def main():
    root = tc.llama_cpp()
    if not root and not shutil.which("llama-tokenize"):
        tc.skip("DIL_LLAMA_CPP names no llama.cpp tree")
    bad = expected_files(root) + other_kinds(root) if root else 0
    return (bad + with_program(root)) != 0


sys.exit(main())
