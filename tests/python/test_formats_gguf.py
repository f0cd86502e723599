"""Tensor formats against the numpy code of the PyPI package `gguf`: sizes, decode, encode.

Needs numpy, gguf and tool_formats in $DIL_BUILD_DIR/bin; else ends with 77 (skipped).
Q1_0 and Q2_0, which older packages do not know, are checked against the numpy lines below.
"""
import os
import subprocess
import sys
import unittest

try:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
except ImportError as missing:
    print(f"skipped: {missing}; pip install gguf")
    sys.exit(77)

TOOL = os.path.join(os.environ.get("DIL_BUILD_DIR", "build"), "bin", "tool_formats")
HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.get("DIL_SOURCE_DIR", os.path.join(HERE, "..", ".."))
if not os.path.exists(TOOL):
    print(f"skipped: {TOOL} is not built")
    sys.exit(77)

BLOCKS = 2000
# Facts that packages before Q1_0 and Q2_0 lack: number, values and bytes per block.
OWN_SIZES = {"Q1_0": (41, 128, 18), "Q2_0": (42, 64, 18), "D3_0": (62, 32, 14), "D6_0": (63, 32, 26)}


def tool(*arguments, data=b""):
    return subprocess.run([TOOL, *arguments], input=data, stdout=subprocess.PIPE, check=True).stdout


def read_sizes():
    rows = [line.split() for line in tool("sizes").decode().splitlines()]
    return {row[0]: tuple(int(v) for v in row[1:]) for row in rows}


SIZES = read_sizes()


def reference_decode(name, data):
    _, values, size = SIZES[name][:3]
    if name in OWN_SIZES:
        blocks = data.reshape(-1, size)
        d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32)
        if name == "Q1_0":
            return (d * (2 * bits - 1)).ravel()
        if name == "D3_0":
            return (d * (bits[:, 0:64:2] + 2 * bits[:, 1:64:2] + 4 * bits[:, 64:] - 4)).ravel()
        if name == "D6_0":
            nibbles = bits[:, :128].reshape(-1, 16, 2, 4) @ np.array([1, 2, 4, 8], dtype=np.float32)
            low = np.concatenate([nibbles[:, :, 0], nibbles[:, :, 1]], axis=1)
            return (d * (low + 16 * bits[:, 128::2] + 32 * bits[:, 129::2] - 32)).ravel()
        return (d * (bits[:, 0::2] + 2 * bits[:, 1::2] - 1)).ravel()
    if name == "BF16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return quants.dequantize(data.reshape(-1, size), GGMLQuantizationType[name]).ravel()


def decode(name, data):
    return np.frombuffer(tool("decode", name, data=data.tobytes()), dtype=np.float32)


def encode(name, x, importance=None):
    x = np.asarray(x, dtype=np.float32)
    if importance is None:
        return np.frombuffer(tool("encode", name, data=x.tobytes()), dtype=np.uint8)
    data = x.tobytes() + np.asarray(importance, dtype=np.float32).tobytes()
    return np.frombuffer(tool("encode-weighted", name, data=data), dtype=np.uint8)


def model_like(rng, n):
    """Gaussian rows of very different scale, with some zero blocks and some outliers."""
    x = rng.standard_normal((n // 256, 256)) * np.exp(rng.uniform(-6, 3, (n // 256, 1)))
    x[::17] = 0
    x[1::19, ::16] *= 10
    x[2::23] = np.abs(x[2::23]) + 0.01
    x[3::29] = -np.abs(x[3::29])
    x[4::5] = np.round(x[4::5] * 2) / 2  # ties, also between values of opposite sign
    return (x.astype(np.float32) + np.float32(0)).ravel()  # no -0: numpy's min takes either zero


class Formats(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(7)

    def same_floats(self, name, ours, theirs):
        self.assertEqual(ours.shape, theirs.shape)
        nan = np.isnan(theirs)
        np.testing.assert_array_equal(np.isnan(ours), nan, err_msg=name)
        different = np.flatnonzero((ours.view(np.uint32) != theirs.view(np.uint32)) & ~nan)
        where = different[:3]
        self.assertEqual(different.size, 0, f"{name}: {where}: {ours[where]} != {theirs[where]}")

    def test_sizes(self):
        expected = {t.name: (int(t), *s) for t, s in GGML_QUANT_SIZES.items()}
        expected = {**OWN_SIZES, **expected}
        expected["Q8_1"] = (9, 32, 36)  # two halves and 32 bytes; packages up to 0.19 say 40
        self.assertEqual({name: row[:3] for name, row in SIZES.items()}, expected)

    def test_decode_random_blocks(self):
        decoders = [name for name, row in SIZES.items() if row[3]]
        self.assertEqual(len(decoders), 30)
        for name in decoders:
            with self.subTest(name):
                size = SIZES[name][2]
                data = self.rng.integers(0, 256, BLOCKS * max(size, 64), dtype=np.uint8)
                data = data[: data.size // size * size]
                with np.errstate(all="ignore"):
                    self.same_floats(name, decode(name, data), reference_decode(name, data))

    def test_decode_every_small_number(self):
        """All 65536 halves as F16, BF16 and as the scale of blocks, all E8M0 and E4M3 scales."""
        halves = np.arange(65536, dtype=np.uint16)
        for name in ("F16", "BF16"):
            data = halves.view(np.uint8)
            with np.errstate(all="ignore"):
                self.same_floats(name, decode(name, data), reference_decode(name, data))
        blocks = self.rng.integers(0, 256, (65536, 34), dtype=np.uint8)
        blocks[:, :2] = halves.view(np.uint8).reshape(-1, 2)
        with np.errstate(all="ignore"):
            theirs = reference_decode("Q8_0", blocks.ravel())
        self.same_floats("Q8_0", decode("Q8_0", blocks), theirs)
        for name, scales in (("MXFP4", 1), ("NVFP4", 4)):
            size = SIZES[name][2]
            blocks = np.repeat(np.arange(256, dtype=np.uint8), size * 4).reshape(-1, size)
            blocks[:, scales:] = self.rng.integers(0, 256, (1024, size - scales), dtype=np.uint8)
            self.same_floats(name, decode(name, blocks), reference_decode(name, blocks.ravel()))

    def test_encode_equals_numpy(self):
        for name in "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 TQ1_0 TQ2_0 MXFP4".split():
            with self.subTest(name):
                x = model_like(self.rng, 256 * BLOCKS)
                theirs = quants.quantize(x.reshape(-1, 256), GGMLQuantizationType[name])
                different = np.flatnonzero(encode(name, x) != theirs.view(np.uint8).ravel())
                self.assertEqual(different.size, 0, f"{name}: first at byte {different[:1]}")

    def test_encode_halves(self):
        """F16 and BF16 rounding on random bits and on ties of F16; NaN stays NaN."""
        bits = self.rng.integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
        one, sign = np.uint32(1), np.uint32(1 << 31)
        ties = (np.arange(65536, dtype=np.uint32) << 13) + np.uint32(0x30800000 + (1 << 12))
        x = np.concatenate([bits, ties, ties | sign, ties - one, ties + one]).view(np.float32)
        with np.errstate(all="ignore"):
            theirs = x.astype(np.float16)
        ours = encode("F16", x).view(np.float16)
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(x))
        same = np.isnan(x) | (ours.view(np.uint16) == theirs.view(np.uint16))
        self.assertTrue(same.all(), x[~same][:5])
        theirs = quants.quantize(x, GGMLQuantizationType.BF16).view(np.uint16)
        np.testing.assert_array_equal(encode("BF16", x).view(np.uint16), theirs)

    def test_importance_lowers_the_weighted_error(self):
        for name in (n for n, row in SIZES.items() if row[4] and row[1] > 1):
            with self.subTest(name):
                x = self.rng.standard_normal(256 * 200).astype(np.float32)
                importance = np.exp(self.rng.uniform(-4, 4, x.size)).astype(np.float32)
                plain = decode(name, encode(name, x)) - x
                weighted = decode(name, encode(name, x, importance)) - x
                weighted, plain = np.sum(importance * weighted**2), np.sum(importance * plain**2)
                self.assertLess(weighted, 0.99 * plain)

    def test_encoders_survive_anything(self):
        """Infinities, NaN, huge and tiny numbers, useless importances: no crash."""
        bits = self.rng.integers(0, 1 << 32, 256 * 200, dtype=np.uint32)
        wild = bits.view(np.float32)
        wild[::7] = 0
        zeros = np.zeros_like(wild)
        random_importance = self.rng.permutation(wild)
        for name in (n for n, row in SIZES.items() if row[4]):
            with self.subTest(name):
                for importance in (None, random_importance, zeros, zeros + np.inf):
                    data = encode(name, wild, importance)
                    self.assertEqual(decode(name, data).size, wild.size)

    def test_generated_tables(self):
        script = os.path.join(SOURCE, "scripts", "gen_formats_tables.py")
        self.assertEqual(subprocess.run([sys.executable, script, "--check"]).returncode, 0)


if __name__ == "__main__":
    unittest.main()
