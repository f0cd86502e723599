"""Small vocabularies for the golden models: one of pieces with scores, one of byte pair merges; unused tokens fill them up."""
SPM_WORDS = ["the", "a", "and", "to", "of", "in", "was", "it", "he", "she", "day", "said", "one", "upon", "time", "there",
             "bir", "ve", "bu", "gün", "çok", "ev", "ağaç", "kuş", "deniz", "yol"]
BPE_WORDS = ["the", "and", "to", "of", "in", "was", "it", "he", "she", "day", "said", "one", "time"]


def spm_vocabulary(n):
    """<unk> <s> </s>, 256 bytes, then words and letters; padded with unused pieces to n tokens."""
    tokens = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % b for b in range(256)]
    types = [2, 3, 3] + [6] * 256
    scores = [0.0] * len(tokens)
    pieces = ["\u2581"] + ["\u2581" + word for word in SPM_WORDS] + list("etaoinshrdlu")
    for rank, piece in enumerate(pieces[:n - len(tokens)]):
        tokens.append(piece.encode())
        types.append(1)
        scores.append(-float(rank))
    for i in range(n - len(tokens)):
        tokens.append(b"[unused%d]" % i)
        types.append(5)
        scores.append(-1000.0)
    return tokens, scores, types


def bytes_to_unicode():
    """GPT-2's printable character for every byte."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {b: chr(b) for b in printable}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def bpe_vocabulary(n):
    """256 byte characters, then the merges that build BPE_WORDS after a space, two control tokens, padding."""
    table = bytes_to_unicode()
    tokens, merges = [table[b] for b in range(256)], []
    for word in BPE_WORDS:
        left = table[ord(" ")]
        for letter in word:
            if left + letter not in tokens:
                if len(tokens) >= n - 2:
                    break
                merges.append(f"{left} {letter}")
                tokens.append(left + letter)
            left += letter
    types = [1] * len(tokens)
    for name in ["<|begin|>", "<|end|>"] + [f"[unused{i}]" for i in range(n)]:
        if len(tokens) < n:
            tokens.append(name)
            types.append(3 if name.startswith("<") else 5)
    return [t.encode() for t in tokens], merges, types


def add_vocabulary(w, spec):
    """Adds the spec's tokens and their keys to a GGUF writer."""
    if spec.vocab == "spm":
        tokens, scores, types = spm_vocabulary(spec.n_vocab)
        w.add_tokenizer_model("llama")
        w.add_token_scores(scores)
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)
    else:
        tokens, merges, types = bpe_vocabulary(spec.n_vocab)
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2" if spec.arch.startswith("qwen") else "llama-bpe")
        w.add_token_merges(merges)
        begin = tokens.index(b"<|begin|>")
        w.add_bos_token_id(begin)
        w.add_eos_token_id(begin + 1)
    w.add_token_list(tokens)
    w.add_token_types(types)
    assert len(tokens) == spec.n_vocab
