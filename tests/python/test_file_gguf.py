"""The GGUF reader and writer against PyPI gguf: files written there read the same here, files written here read the same
there, split files included; random damage to such a file never ends in a crash."""

import os
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

TOOL = pathlib.Path(os.environ.get("DIL_BUILD_DIR", "build")) / "bin" / "tool_file"
if not TOOL.exists():
    print(f"skipped: no {TOOL}")
    sys.exit(77)


def tool(*arguments, good=True):
    done = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), f"{arguments}: ended with {done.returncode}: {done.stderr}"
    if good:
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done


def add_values(w):
    w.add_uint8("test.u8", 200)
    w.add_int8("test.i8", -100)
    w.add_uint16("test.u16", 60000)
    w.add_int16("test.i16", -30000)
    w.add_uint32("test.u32", 4_000_000_000)
    w.add_int32("test.i32", -2_000_000_000)
    w.add_uint64("test.u64", 2**64 - 1)
    w.add_int64("test.i64", -(2**63))
    w.add_float32("test.f32", 0.1)
    w.add_float64("test.f64", 0.1)
    w.add_bool("test.true", True)
    w.add_bool("test.false", False)
    w.add_string("test.text", "İstanbul'da ığüşöç 😀\n")
    w.add_string("test.empty", "")
    w.add_array("test.strings", ["a", "", "ğ" * 300, "\0zero"])
    w.add_array("test.floats", [1.5, -2.0, 1e30])
    w.add_array("test.ints", [1, -2, 3])
    w.add_array("test.bools", [True, False, True])


def add_tensors(w, rng):
    for name, shape in (
        ("f32.1d", (7,)),
        ("f32.2d", (3, 5)),
        ("f32.3d", (2, 3, 4)),
        ("f32.4d", (2, 1, 3, 2)),
    ):
        w.add_tensor(name, rng.standard_normal(shape).astype(np.float32))
    w.add_tensor("f16", rng.standard_normal((4, 6)).astype(np.float16))
    w.add_tensor("i8", rng.integers(-128, 127, (9,)).astype(np.int8))
    w.add_tensor("i32", rng.integers(-(2**31), 2**31 - 1, (3, 3)).astype(np.int32))
    w.add_tensor("f64", rng.standard_normal((3,)))
    rows = rng.standard_normal((3, 256)).astype(np.float32)
    for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "TQ1_0", "TQ2_0"):
        kind = gguf.GGMLQuantizationType[kind]
        w.add_tensor(f"q.{kind.name}", gguf.quants.quantize(rows, kind), raw_dtype=kind)


def write(path, alignment=None, **options):
    w = gguf.GGUFWriter(path, "llama", **options)
    if alignment:
        w.add_custom_alignment(alignment)
    add_values(w)
    add_tensors(w, np.random.default_rng(1))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def as_gguf_reads(path):
    reader = gguf.GGUFReader(path)
    values, tensors = {}, {}
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        element = field.types[-1]
        pieces = [field.parts[i].tobytes().hex() for i in field.data]
        joined = ("," if element == gguf.GGUFValueType.STRING else "").join(pieces)
        values[name] = (int(field.types[0]), int(element), len(pieces) if array else 1, joined)
    for t in reader.tensors:
        tensors[t.name] = (
            int(t.tensor_type),
            int(t.data_offset),
            [int(n) for n in t.shape],
            t.data.tobytes().hex(),
        )
    return values, tensors


def as_we_read(path):
    values, tensors = {}, {}
    for line in tool("dump", path).stdout.splitlines():
        kind, name, *rest = line.split(" ")
        name = bytes.fromhex(name).decode()
        if kind == "V":
            values[name] = (int(rest[0]), int(rest[1]), int(rest[2]), rest[3])
        else:
            tensors[name] = (
                int(rest[0]),
                int(rest[1]),
                [int(n) for n in rest[2].split("x")],
                rest[3],
            )
    return values, tensors


def same(ours, theirs, what):
    for a, b, kind in ((ours[0], theirs[0], "value"), (ours[1], theirs[1], "tensor")):
        assert list(a) == list(b), f"{what}: {kind}s: {set(a) ^ set(b)}"
        for name in a:
            assert a[name] == b[name], f"{what}: {kind} {name}: {a[name]} != {b[name]}"


def without_offsets(tensors):
    return {name: (t[0], *t[2:]) for name, t in tensors.items()}


def check_reading(folder):
    for alignment in (None, 64, 4096):
        path = folder / f"a{alignment}.gguf"
        write(path, alignment)
        theirs = as_gguf_reads(path)
        assert len(theirs[1]) == 16
        same(as_we_read(path), theirs, f"alignment {alignment}")
        assert tool("check", path).stdout == ""


def check_writing(folder):
    for alignment in (None, 64):
        path, copy = folder / f"a{alignment}.gguf", folder / "copy.gguf"
        tool("copy", path, copy)
        same(as_gguf_reads(copy), as_gguf_reads(path), f"copy, alignment {alignment}")


def check_split(folder):
    write(folder / "s.gguf", split_max_tensors=5)
    parts = sorted(folder.glob("s-*.gguf"))
    assert len(parts) == 4, parts
    whole = as_gguf_reads(folder / "aNone.gguf")
    for part in parts:
        values, tensors = as_we_read(part)
        assert without_offsets(tensors) == without_offsets(whole[1])
        assert values["test.strings"] == whole[0]["test.strings"]
        assert tool("check", part).stdout == ""
    tool("copy", parts[1], folder / "joined.gguf")
    values, tensors = as_gguf_reads(folder / "joined.gguf")
    assert without_offsets(tensors) == without_offsets(whole[1])
    assert not any(key.startswith("split.") for key in values)
    parts[2].unlink()
    assert "part 3 of 4 is missing" in tool("dump", parts[0], good=False).stderr


def check_damage(folder):
    good = (folder / "aNone.gguf").read_bytes()
    rng = random.Random(2)
    path = folder / "damaged.gguf"
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data) if rng.random() < 0.3 else 2500)] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        tool("dump", path, good=False)
        tool("check", path, good=False)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_reading(folder)
        check_writing(folder)
        check_split(folder)
        check_damage(folder)
    print("reading, writing, split files and damaged files: ok")


if __name__ == "__main__":
    main()
