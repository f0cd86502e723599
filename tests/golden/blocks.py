"""Tensor blocks for golden models: PyPI gguf's quantizers where it has them, else random valid blocks of a chosen size.

Random blocks have every bit pattern the format allows in their codes and small scales, so they test a decoder at least as well
as quantized weights do. The scale fields are set so that the decoded weights have the same deviation as the wanted ones.
"""
import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants


def add_type(name, number, n_values, n_bytes):
    """Teaches an older gguf package a tensor type: number in the file, values and bytes per block."""
    if name not in Type.__members__:
        member = int.__new__(Type, number)
        member._name_, member._value_ = name, number
        setattr(Type, name, member)
        Type._member_map_[name] = Type._value2member_map_[number] = member
        gguf.GGML_QUANT_SIZES[member] = (n_values, n_bytes)


add_type("Q1_0", 41, 128, 18)
add_type("Q2_0", 42, 64, 18)

# type name -> (byte offset of the f16 scale, byte offset of the f16 minimum or None, minimum / scale for zero-mean weights)
F16_SCALES = {
    "Q2_K": (80, 82, 1.5), "Q3_K": (108, None, 0), "Q4_K": (0, 2, 7.5), "Q5_K": (0, 2, 15.5), "Q6_K": (208, None, 0),
    "IQ1_S": (0, None, 0), "IQ2_XXS": (0, None, 0), "IQ2_XS": (0, None, 0), "IQ2_S": (0, None, 0), "IQ3_XXS": (0, None, 0),
    "IQ3_S": (0, None, 0), "IQ4_NL": (0, None, 0), "IQ4_XS": (0, None, 0),
    "Q1_0": (0, None, 0), "Q2_0": (0, None, 0), "Q4_0": (0, None, 0), "Q5_0": (0, None, 0), "Q8_0": (0, None, 0),
}


def decode_codes(data, n_bits, levels):
    """Blocks of an f16 scale and packed codes, lowest bits first: scale * levels[code]."""
    codes = (data[:, 2:, None] >> np.arange(0, 8, n_bits, dtype=np.uint8)) & (2 ** n_bits - 1)
    scale = data[:, :2].copy().view("<f2").astype(np.float32)
    return scale * np.array(levels, dtype=np.float32)[codes.reshape(len(data), -1)]


def decode(data, qtype):
    """Raw rows -> f32 rows."""
    own = {"Q1_0": (1, [-1, 1]), "Q2_0": (2, [-1, 0, 1, 2])}.get(qtype.name)
    if not own:
        return quants.dequantize(data, qtype)
    blocks = np.asarray(data).reshape(-1, gguf.GGML_QUANT_SIZES[qtype][1])
    return decode_codes(blocks, *own).reshape(*np.shape(data)[:-1], -1)


def can_make(qtype):
    """Whether this gguf package can decode the type, which the reference needs."""
    if qtype in (Type.F32, Type.F16):
        return True
    try:
        n, size = gguf.GGML_QUANT_SIZES[qtype]
        decode(np.zeros((1, size), dtype=np.uint8), qtype)
        return True
    except (NotImplementedError, KeyError):
        return False


def set_f16(data, offset, values):
    data[:, offset:offset + 2] = values.astype("<f2").reshape(-1, 1).view(np.uint8)


def set_iq1m_scale(data, values):
    """IQ1_M keeps its f16 scale in the high nibbles of four 16-bit words that start at byte 48."""
    bits = values.astype("<f2").view(np.uint16)
    for i in range(4):
        data[:, 49 + 2 * i] = (data[:, 49 + 2 * i] & 0x0F) | (((bits >> (4 * i)) & 0xF) << 4).astype(np.uint8)


def set_scales(data, name, scales):
    """Writes one f32 per block into the scale fields of random blocks `data` [n_blocks, block_bytes]."""
    if name == "IQ1_M":
        set_iq1m_scale(data, scales)
        return
    offset, offset_min, ratio = F16_SCALES[name]
    set_f16(data, offset, scales)
    if offset_min is not None:
        set_f16(data, offset_min, scales * ratio)


def random_blocks(shape, qtype, deviation, rng):
    n_per_block, size = gguf.GGML_QUANT_SIZES[qtype]
    n_blocks = int(np.prod(shape)) // n_per_block
    data = rng.integers(0, 256, (n_blocks, size), dtype=np.uint8)
    if qtype.name == "NVFP4":  # four unsigned e4m3 scales first; 0x08..0x17 are 2^-6 .. 2^-4.1
        data[:, :4] = rng.integers(0x08, 0x18, (n_blocks, 4), dtype=np.uint8)
    else:
        set_scales(data, qtype.name, np.ones(n_blocks, dtype=np.float32))
        unit = decode(data[:4096], qtype).std()
        jitter = rng.uniform(0.7, 1.3, n_blocks) * rng.choice([1.0, 1.0, 1.0, -1.0], n_blocks)
        set_scales(data, qtype.name, (deviation / unit * jitter).astype(np.float32))
    return data.reshape(*shape[:-1], -1)


def quantize(values, qtype, rng):
    """values [..., n_out, n_in] f32 -> raw rows as GGUFWriter wants them."""
    if qtype == Type.F16:
        return values.astype(np.float16)
    try:
        return quants.quantize(values, qtype)
    except NotImplementedError:
        return random_blocks(values.shape, qtype, values.std(), rng)
