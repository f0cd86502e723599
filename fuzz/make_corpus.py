#!/usr/bin/env python3
"""Writes the seeds fuzz/corpus/gguf, fuzz/corpus/formats and fuzz/corpus/route: small valid files and one per kind of defect that has hurt other
readers. Only the standard library; the same bytes every time. usage: make_corpus.py [--check]"""

import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent / "corpus"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = dict(zip(range(13), "B b H h I i f B - - Q q d".split()))
MAX64 = 2**64 - 1


def text(s):
    data = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    return text(v) if kind == STRING else struct.pack("<" + PACK[kind], v)


def key(name, kind, v):
    return text(name) + struct.pack("<I", kind) + value(kind, v)


def array(name, kind, items, count=None):
    head = struct.pack("<IIQ", ARRAY, kind, len(items) if count is None else count)
    return text(name) + head + b"".join(value(kind, v) for v in items)


def tensor(name, kind, dims, offset, n_dims=None):
    head = struct.pack("<I", len(dims) if n_dims is None else n_dims)
    return text(name) + head + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


def gguf(values=(), tensors=(), data=b"", version=3, magic=b"GGUF", n_values=None, n_tensors=None):
    out = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(values) if n_values is None else n_values,
    )
    out += b"".join(values) + b"".join(tensors)
    return out + b"\0" * (-len(out) % 32) + data if tensors else out


def gguf_seeds():
    base = [key("general.architecture", STRING, "llama"), key("general.name", STRING, "seed")]
    tokens = [
        key("tokenizer.ggml.model", STRING, "gpt2"),
        array("tokenizer.ggml.tokens", STRING, ["<s>", "a", "b", "ab"]),
        array("tokenizer.ggml.scores", F32, [0.0, -1.0, -2.0, -3.0]),
        array("tokenizer.ggml.token_type", I32, [3, 1, 1, 1]),
        array("tokenizer.ggml.merges", STRING, ["a b"]),
        key("tokenizer.ggml.bos_token_id", U32, 0),
    ]
    kinds = [key(f"k{k}", k, "x" if k == STRING else 1) for k in range(13) if k != ARRAY]
    arrays = [
        array(f"a{k}", k, ["x", ""] if k == STRING else [1, 0, 1]) for k in PACK if k != ARRAY
    ]
    f32 = tensor("t", 0, [4, 2], 0)
    data = struct.pack("<8f", *range(8))
    q8 = struct.pack("<e32b", 1.0, *range(32))
    seeds = {
        "empty": b"",
        "header_only": gguf(),
        "valid": gguf(base + tokens, [f32, tensor("q", 8, [32], 32)], data + q8),
        "valid_v2": gguf(base, [f32], data, version=2),
        "valid_kinds": gguf(kinds + arrays),
        "valid_alignment_64": gguf(
            [key("general.alignment", U32, 64)],
            [tensor("a", 24, [1], 0), tensor("b", 24, [1], 64)],
            b"\0" * 160,
        ),
        "big_endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "magic": gguf(magic=b"GGML"),
        "version_1": gguf(version=1),
        "n_tensors_max": gguf(n_tensors=MAX64),
        "n_values_max": gguf(n_values=MAX64),
        "n_values_wraps": gguf(base, n_values=MAX64 // 14),
        "key_length_max": gguf([struct.pack("<Q", MAX64)], n_values=1),
        "key_empty": gguf([key("", U32, 1)]),
        "key_duplicate": gguf(base + base),
        "key_not_utf8": gguf([key(b"\xff\xfe", U32, 1)]),
        "kind_unknown": gguf([text("k") + struct.pack("<I", 13)]),
        "text_length_wraps": gguf([text("k") + struct.pack("<IQ", STRING, MAX64 - 7)]),
        "array_length_wraps": gguf([array("k", U64, [1], count=2**61 + 1)]),
        "array_strings_max": gguf([array("k", STRING, ["x"], count=MAX64)]),
        "array_nested": gguf([text("k") + struct.pack("<IIQIQ", ARRAY, ARRAY, 1, ARRAY, 1)]),
        "bool_2": gguf([key("k", BOOL, 2)]),
        "alignment_0": gguf([key("general.alignment", U32, 0)], [f32], data),
        "alignment_max": gguf([key("general.alignment", U32, 2**31)], [f32], data),
        "alignment_kind": gguf([key("general.alignment", STRING, "32")], [f32], data),
        "dims_0": gguf(base, [tensor("t", 0, [], 0)], data),
        "dims_5": gguf(base, [tensor("t", 0, [1] * 5, 0)], data),
        "dims_max": gguf(base, [tensor("t", 0, [1], 0, n_dims=2**32 - 1)], data),
        "dimension_0": gguf(base, [tensor("t", 0, [4, 0], 0)], data),
        "dimension_negative": gguf(base, [tensor("t", 0, [4, MAX64], 0)], data),
        "elements_wrap": gguf(base, [tensor("t", 0, [2**32, 2**32 + 1], 0)], data),
        "bytes_wrap": gguf(base, [tensor("t", 0, [2**62], 0)], data),
        "exabyte": gguf(base, [tensor("t", 0, [4, 2**57], 0)], data),
        "beyond_file": gguf(base, [tensor("t", 0, [4, 100], 0)], data),
        "type_removed": gguf(base, [tensor("t", 4, [32], 0)], data),
        "type_max": gguf(base, [tensor("t", 2**32 - 1, [32], 0)], data),
        "row_not_a_block": gguf(base, [tensor("t", 8, [33], 0)], data + q8),
        "offset_odd": gguf(base, [tensor("t", 0, [1], 1)], data),
        "offset_wraps": gguf(base, [tensor("t", 0, [8], MAX64 - 31)], data),
        "overlap": gguf(base, [f32, tensor("u", 0, [8], 0)], data),
        "tensor_duplicate": gguf(base, [f32, tensor("t", 0, [8], 32)], data + data),
        "tensor_unnamed": gguf(base, [tensor("", 0, [8], 0)], data),
        "tensor_name_long": gguf(base, [tensor("n" * 65, 0, [8], 0)], data),
        "scale_nan": gguf(
            base, [tensor("t", 8, [32], 0)], struct.pack("<H32b", 0x7E00, *range(32))
        ),
        "value_infinite": gguf(base, [f32], struct.pack("<8f", *range(7), float("inf"))),
        "token_id_beyond": gguf(base + tokens + [key("tokenizer.ggml.eos_token_id", U32, 4)]),
        "token_types_short": gguf(
            base + tokens[:2] + [array("tokenizer.ggml.token_type", I32, [1])]
        ),
        "token_types_kind": gguf(
            base + tokens[:2] + [array("tokenizer.ggml.token_type", STRING, ["x"] * 4)]
        ),
        "merges_malformed": gguf(
            base + tokens[:2] + [array("tokenizer.ggml.merges", STRING, ["ab", "a ", " b"])]
        ),
        "split_key": gguf([key("split.count", U16, 3), key("split.no", U16, 0)]),
    }
    seeds["truncated"] = seeds["valid"][:-1]
    return seeds


def format_seeds():
    """First byte the type; second: 0 decode, 1 encode, 3 encode with importances."""
    seeds = {}
    pattern = bytes((i * 37 + 11) % 256 for i in range(300))
    floats = struct.pack("<256f", *((i * 7 % 31 - 15) / 8 for i in range(256)))
    special = (
        struct.pack("<8f", float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 1e-45, -0.0, 0)
        * 32
    )
    for kind in (
        0,
        1,
        2,
        3,
        6,
        7,
        8,
        *range(10, 15),
        *range(16, 24),
        29,
        30,
        34,
        35,
        39,
        40,
        41,
        42,
    ):
        head = bytes([kind])
        seeds[f"decode_{kind:02}"] = head + b"\0" + pattern
        seeds[f"encode_{kind:02}"] = head + b"\3" + floats + floats
        if kind in (8, 12):
            seeds[f"decode_{kind:02}_ones"] = head + b"\0" + b"\xff" * 300
            seeds[f"encode_{kind:02}_special"] = head + b"\1" + special
    return seeds


def fnv(*parts):
    state = 0x811C9DC5
    for byte in b"".join(parts):
        state = (state ^ byte) * 0x1B3 & 0xFFFFFFFF
    return struct.pack("<I", state)


def route(layers, n_used, tokens, weights=False, name=b"seed", finished=True, begins=1):
    """A router log as src/experts/trace.h describes it. layers: (bytes, experts); tokens: lists of the chosen experts."""
    head = b"DILROUTE" + struct.pack(
        "<6I", 1, 36 + 16 * len(layers) + len(name), len(layers), n_used, int(weights), len(name)
    )
    head += b"".join(struct.pack("<QII", size, n, 0) for size, n in layers) + name
    out = head + fnv(head)
    bits = [max(1, (n - 1).bit_length()) for _, n in layers if n for _ in range(n_used)]
    for number, chosen in enumerate(tokens):
        packed, at = 0, 0
        for width, expert in zip(bits, chosen):
            packed |= expert << at
            at += width
        record = bytes([number % begins == 0]) + packed.to_bytes((at + 7) // 8, "little")
        record += bytes(range(len(chosen))) if weights else b""
        out += record + fnv(struct.pack("<Q", number), record)
    end = b"\2" + struct.pack("<Q", len(tokens))
    return out + end + fnv(end) if finished else out


def route_seeds():
    layers, tokens = [(0, 0), (4096, 5), (9000, 9)], [[0, 4, 8, 7], [1, 4, 8, 2], [0, 4, 3, 2]]
    valid = route(layers, 2, tokens)
    return {
        "empty": b"",
        "no_tokens": route(layers, 2, []),
        "valid": valid,
        "valid_weights": route(layers, 2, tokens * 20, weights=True, begins=4),
        "valid_one": route([(1, 2)], 1, [[0], [1], [1]]),
        "not_finished": route(layers, 2, tokens, finished=False),
        "cut": valid[:-20],
        "expert_beyond": route(layers, 2, [[0, 7, 8, 7]]),
        "expert_twice": route(layers, 2, [[4, 4, 8, 7]]),
        "used_above_experts": route(layers, 6, [[0] * 12]),
        "bytes_max": route([(MAX64, 5)], 2, [[0, 1]]),
        "experts_max": route([(4096, 2**32 - 1)], 2, []),
        "experts_many": route([(4096, 65535)] * 3, 1, [[65534, 0, 1]] * 3),
        "layers_none": route([], 1, []),
        "name_long": route(layers, 2, [], name=b"n" * 5000),
    }


def main():
    check, wrong = "--check" in sys.argv[1:], 0
    for folder, seeds in (
        ("gguf", gguf_seeds()),
        ("formats", format_seeds()),
        ("route", route_seeds()),
    ):
        (HERE / folder).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            path = HERE / folder / name
            if check:
                wrong += not path.exists() or path.read_bytes() != data
            else:
                path.write_bytes(data)
    if wrong:
        print(f"make_corpus: {wrong} seeds differ: run fuzz/make_corpus.py")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
