"""What can be wrong with a file: tables of mutations, name -> (good bytes, random numbers) -> hostile bytes.

    good file --a mutation of its format, a seed--> hostile file --reader--> a result, or one line that says why not

The same seed makes the same file. `OF` says which tables belong to which format; `hostile` draws from them.
"""

import gzip
import io
import json
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

Mutation = Callable[[bytes, random.Random], bytes]

NUMBER = re.compile(rb"(?<![A-Za-z_])[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?(?:\(\d+\))?")
NUMBERS = (
    b"1e308", b"-1e308", b"1e-308", b"99999999999", b"-99999999999", b"nan", b"NaN", b"inf", b"-inf", b"0", b"-1",
    b"1e5",
    b"0.0000001", b"?", b".", b"", b"1e9999", b"0x10", b"1,5", b"--1", b"9" * 400,
)  # fmt: skip
WORDS = (
    b"'", b'"', b";", b"\n;", b"_", b"data_", b"loop_", b"#", b"$$$$", b"M  END", b"{", b"[[[[", b"\x00",
    b"\xff\xfe", b"null",
    b"true", b"-", b"Xx", b"D", b"T", b"Og", b"Uuo", b"H" * 5000, b"../../etc/passwd", b"=", b"%s%n", "Ω≠é漢".encode(),
)  # fmt: skip


# ---------------------------------------------------------------- bytes


def truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Some bytes are others."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 30)) if data else 0):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def cut_out(data: bytes, chance: random.Random) -> bytes:
    a, b = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:a] + data[b:]


def repeated(data: bytes, chance: random.Random) -> bytes:
    """A stretch of at most 2 kB stands there up to fifty times."""
    a = chance.randrange(len(data) + 1)
    b = a + chance.randrange(2000)
    return data[:b] + data[a:b] * chance.randrange(50) + data[b:]


def noise(_: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 100, 10_000)))


def nothing(_: bytes, __: random.Random) -> bytes:
    return b""


def blanks(_: bytes, chance: random.Random) -> bytes:
    return chance.choice((b" ", b"\n", b"\t", b"\r", b"\x00", b" \n")) * 100_000


def blanks_around(data: bytes, chance: random.Random) -> bytes:
    empty = chance.choice((b"\n", b" ", b"\x00")) * 10_000
    return empty + data + empty


def packed(data: bytes, _: random.Random) -> bytes:
    return gzip.compress(data)


ANY: dict[str, Mutation] = {
    f.__name__: f
    for f in (truncated, flipped, cut_out, repeated, noise, nothing, blanks, blanks_around, packed)
}


# ---------------------------------------------------------------- text


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True) or [b""]


def lines_swapped(data: bytes, chance: random.Random) -> bytes:
    lines = _lines(data)
    for _ in range(chance.choice((1, 5))):
        i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
        lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def lines_dropped(data: bytes, chance: random.Random) -> bytes:
    share = chance.choice((0.02, 0.3))
    return b"".join(line for line in _lines(data) if chance.random() > share)


def lines_doubled(data: bytes, chance: random.Random) -> bytes:
    share = chance.choice((0.02, 0.3))
    return b"".join(line * (1 + (chance.random() < share)) for line in _lines(data))


def lines_joined(data: bytes, chance: random.Random) -> bytes:
    return b"".join(line.rstrip() + b" " if chance.random() < 0.1 else line for line in _lines(data))


def numbers_replaced(data: bytes, chance: random.Random) -> bytes:
    """One number, or some, become hostile ones."""
    found = list(NUMBER.finditer(data))
    chosen = chance.sample(found, min(len(found), chance.choice((1, 1, 3, 20))))
    for match in sorted(chosen, key=lambda m: -m.start()):
        data = data[: match.start()] + chance.choice(NUMBERS) + data[match.end() :]
    return data


def words_replaced(data: bytes, chance: random.Random) -> bytes:
    found = list(re.finditer(rb"\S+", data))
    chosen = chance.sample(found, min(len(found), chance.choice((1, 1, 3))))
    for match in sorted(chosen, key=lambda m: -m.start()):
        data = data[: match.start()] + chance.choice(WORDS) + data[match.end() :]
    return data


def words_swapped(data: bytes, chance: random.Random) -> bytes:
    parts = re.split(rb"(\s+)", data)
    for _ in range(chance.choice((1, 5))):
        i, j = chance.randrange(len(parts)), chance.randrange(len(parts))
        parts[i], parts[j] = parts[j], parts[i]
    return b"".join(parts)


def other_encoding(data: bytes, chance: random.Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    text += chance.choice(("", "é", "# Å ½ “quoted”"))
    name = chance.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp037", "utf-7"))
    return text.encode(name, errors="replace")


def other_line_ends(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines()
    ends = chance.choice((b"\r\n", b"\r", b"\n\n", "\u2028".encode(), b"\x0b", b"\x0c", b" ", b""))
    return ends.join(lines) + ends


def zeros_between(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + b"\x00" * chance.choice((1, 1000)) + data[at:]


TEXT: dict[str, Mutation] = {
    f.__name__: f
    for f in (
        lines_swapped, lines_dropped, lines_doubled, lines_joined, numbers_replaced, words_replaced, words_swapped,
        other_encoding, other_line_ends, zeros_between,
    )
}  # fmt: skip


# ---------------------------------------------------------------- CIF


def _replaced(data: bytes, pattern: bytes, becomes: Callable[[re.Match[bytes]], bytes]) -> bytes:
    return re.sub(rb"(?mi)" + pattern, becomes, data)


def cell_lengths(data: bytes, chance: random.Random) -> bytes:
    """One length, or all three, of no cell that atoms fit into."""
    which = chance.choice((b"a", b"b", b"c", b"[abc]"))
    becomes = chance.choice(
        (b"0", b"-7", b"1e-300", b"1e308", b"0.001", b"0.3", b"1e6", b"99999", b"nan", b"?")
    )
    return _replaced(data, rb"^(_cell_length_" + which + rb"\s+)\S+", lambda m: m[1] + becomes)


def cell_angles(data: bytes, chance: random.Random) -> bytes:
    """Flat, inside out, or no cell at all."""
    which = chance.choice((b"alpha", b"beta", b"gamma", b"(?:alpha|beta|gamma)"))
    becomes = chance.choice(
        (b"0", b"180", b"179.999", b"0.001", b"-90", b"360", b"119.99", b"120", b"nan", b"1e308")
    )
    return _replaced(data, rb"^(_cell_angle_" + which + rb"\s+)\S+", lambda m: m[1] + becomes)


OPERATION = rb"^(\s*(?:\d+\s+)?['\"]?)(-?[xyz][^'\"\n,]*,[^'\"\n,]*,[^'\"\n,]*)(['\"]?\s*)$"


def operations(data: bytes, chance: random.Random) -> bytes:
    """One operation, or all of them, are wrong."""
    becomes = chance.choice(
        (b"x,y,z", b"-x,-y,-z", b"x+1/3,y,z", b"x,x,x", b"2x,y,z", b"x/0,y,z", b"0,0,0", b"x,y", b"y,z,x",
        b"x+1e9,y,z",
         b"x-y,x,z+1/6", b"x*y,z,1", b"x,y,z,t", b"1/2+x,1/0-y,z", b"x+0.123,y,z", b"h,k,l", b"99999999999x,y,z")
    )  # fmt: skip
    share = chance.choice((0.3, 1.0))
    return _replaced(data, OPERATION, lambda m: m[1] + (becomes if chance.random() < share else m[2]) + m[3])


def operations_lost(data: bytes, chance: random.Random) -> bytes:
    return _replaced(data, OPERATION + rb"\n?", lambda m: b"" if chance.random() < 0.5 else m[0])


def many_operations(data: bytes, chance: random.Random) -> bytes:
    """Thousands of different ones."""
    n = chance.choice((200, 3000))
    more = b"".join(b"'x+%d/%d,y,z'\n" % (k, n) for k in range(n))
    return _replaced(data, OPERATION + rb"\n", lambda m: more)


ATOM = (
    rb"^([A-Za-z]{1,2}\d*[A-Za-z']*)([ \t]+)((?:\S+[ \t]+)*?)(-?\d*\.\d+(?:\(\d+\))?)"
    rb"([ \t]+-?\d*\.\d+\S*[ \t]+-?\d*\.\d+\S*)(.*)$"
)


def elements(data: bytes, chance: random.Random) -> bytes:
    symbols = (
        b"Xx", b"D", b"T", b"Og", b"X", b"?", b".", b"Cn1", b"Wat", b"Q1", b"U", b"Cs", b"He", b"H", b"C1+99",
        b"\xc3\xa9",
    )  # fmt: skip
    becomes, share = chance.choice(symbols), chance.choice((0.05, 1.0))
    return _replaced(
        data,
        ATOM,
        lambda m: becomes + b" " + becomes + m[2] + m[4] + m[5] + m[6] if chance.random() < share else m[0],
    )


def atoms_doubled(data: bytes, chance: random.Random) -> bytes:
    times = chance.choice((2, 2, 30))
    return _replaced(data, ATOM, lambda m: b"\n".join([m[0]] * times))


def atoms_shaken(data: bytes, chance: random.Random) -> bytes:
    width = chance.choice((0.003, 0.03, 0.5, 1e4, 1e18))
    return _replaced(
        data, ATOM, lambda m: m[1] + m[2] + m[3] + b"%.5f" % chance.uniform(-width, width) + m[5] + m[6]
    )


def atoms_in_one_place(data: bytes, _: random.Random) -> bytes:
    return _replaced(data, ATOM, lambda m: m[1] + m[2] + m[3] + b"0.25 0.25 0.25" + m[6])


def hydrogens_lost(data: bytes, chance: random.Random) -> bytes:
    share = chance.choice((0.3, 1.0))
    return _replaced(data, rb"^[HD]\d+\S*[ \t].*\n", lambda m: b"" if chance.random() < share else m[0])


def occupancies(data: bytes, chance: random.Random) -> bytes:
    """Disorder as it is written, and as it should not be."""
    tail = chance.choice(
        (b"0.5 A 1", b"0.5 A 2", b"-1 . .", b"7 . .", b"0 . .", b"nan . .", b"0.5 . -1", b"1 A 1")
    )
    head = b"_atom_site_occupancy\n_atom_site_disorder_assembly\n_atom_site_disorder_group\n"
    with_columns = re.sub(rb"(?m)^(_atom_site_fract_z\s*\n)", lambda m: m[1] + head, data, count=1)
    return _replaced(
        with_columns, ATOM, lambda m: m[1] + m[2] + m[3] + m[4] + m[5] + b" " + tail + b" " + m[6]
    )


def formulas(data: bytes, chance: random.Random) -> bytes:
    becomes = chance.choice(
        (b"'C99999999999 H1'", b"'C0 H0'", b"'C1.5.5'", b"?", b"'Xx4'", b"''", b"C6H6" * 1000, b"'C6 H6 (H2 O)n'",
        b"'C. H.'",
         b"'C1e5'")
    )  # fmt: skip
    data = _replaced(data, rb"^(_chemical_formula_sum\s+).*$", lambda m: m[1] + becomes)
    z = chance.choice((b"0", b"-4", b"1e308", b"nan", b"4.5", b"?"))
    return _replaced(data, rb"^(_cell_formula_units_Z\s+).*$", lambda m: m[1] + z)


def symbols(data: bytes, chance: random.Random) -> bytes:
    """No operations, and another name of the group."""
    without = _replaced(data, OPERATION + rb"\n?", lambda m: b"")
    names = (
        b"'P 1'",
        b"'F m -3 m'",
        b"'I a -3 d'",
        b"'P 99'",
        b"''",
        b"'P21/c:R'",
        b"231",
        b"?",
        b"'R -3 c :R'",
    )
    becomes = chance.choice(names)
    tag = rb"^(_(?:symmetry_|)space_group_name_(?:H-M|Hall|H-M_alt)\s+).*$"
    return _replaced(without, tag, lambda m: m[1] + becomes)


def tables_torn(data: bytes, chance: random.Random) -> bytes:
    """A value too many or too few in a loop, a text that never ends."""
    return chance.choice(
        (
            lambda: re.sub(rb"(?m)^(_atom_site_label\s*\n)", rb"\1_atom_site_label\n", data, count=1),
            lambda: re.sub(rb"(?m)^(_atom_site_fract_y)\s*\n", b"", data, count=1),
            lambda: data + b"\nloop_\n_atom_site_fract_x\n",
            lambda: data + b"\n;\nnever ends",
            lambda: data + b"\n" + data,
            lambda: data + b"\nloop_\n_x\n" + b"'a' " * 100_000,
        )
    )()


def huge_cell(data: bytes, chance: random.Random) -> bytes:
    """Hundreds or thousands of atoms more."""
    n = chance.choice((500, 4000))
    more = b"".join(b"C%d C %.6f %.6f %.6f\n" % (k, *(chance.random() for _ in range(3))) for k in range(n))
    cell = b"".join(b"_cell_length_%c 60\n" % x for x in b"abc")
    group = b"_symmetry_space_group_name_H-M '%s'\n" % chance.choice((b"P 1", b"P 21/c", b"F m -3 m"))
    columns = b"".join(
        b"_atom_site_%s\n" % x for x in (b"label", b"type_symbol", b"fract_x", b"fract_y", b"fract_z")
    )
    return b"data_huge\n" + cell + group + b"loop_\n" + columns + more + chance.choice((b"", data))


CIF: dict[str, Mutation] = {
    f.__name__: f
    for f in (
        cell_lengths, cell_angles, operations, operations_lost, many_operations, elements, atoms_doubled,
        atoms_shaken,
        atoms_in_one_place, hydrogens_lost, occupancies, formulas, symbols, tables_torn, huge_cell,
    )
}  # fmt: skip


# ---------------------------------------------------------------- XYZ, SDF, SMILES


def counts(data: bytes, chance: random.Random) -> bytes:
    """The first line of an XYZ file says another number of atoms."""
    first, _, rest = data.partition(b"\n")
    return (
        chance.choice((b"99999999999", b"-1", b"0", b"1.5", b"1e3", b"", b"3", "٣".encode(), b"9" * 5000))
        + b"\n"
        + rest
    )


def comments(data: bytes, chance: random.Random) -> bytes:
    """The comment of an XYZ file says nonsense."""
    lines = data.split(b"\n")
    becomes = chance.choice(
        (
            b'Lattice="0 0 0 0 0 0 0 0 0"', b'Lattice="1 0 0 0 1 0"', b'Lattice="1e308 0 0 0 1e308 0 0 0 1e308"',
            b'Lattice="a b c d e f g h i"', b'Properties=species:S:1:pos:R:3000000000', b"Properties=pos:R:3",
            b"Properties=::::",
            b'Lattice="5 0 0 5 0 0 5 0 0" Properties=species:S:1:pos:R:3', b'Properties=species:S:1:pos:S:3',
            b'Lattice="nan 0 0 0 1 0 0 0 1"', b'Properties=species:I:1:pos:R:3', b"[[[[[" * 1000,
            b'energy="x" mol_id=', b'pbc="T"',
            b'Lattice="0.001 0 0 0 0.001 0 0 0 0.001" Properties=species:S:1:pos:R:3',
        )
    )  # fmt: skip
    if len(lines) > 1:
        lines[1] = becomes
    return b"\n".join(lines)


XYZ: dict[str, Mutation] = {f.__name__: f for f in (counts, comments)}


def counts_line(data: bytes, chance: random.Random) -> bytes:
    """The fourth line of a MOL block."""
    lines = data.split(b"\n")
    if len(lines) > 3:
        lines[3] = chance.choice(
            (b"999999  0  0  0  0  0            999 V2000", b" -1 -1  0  0  0  0            999 V2000", b"999999",
             b"  0  0  0     0  0            999 V3000", b"  1 99  0  0  0  0            999 V2000", b"", b"V2000")
        )  # fmt: skip
    return b"\n".join(lines)


def properties(data: bytes, chance: random.Random) -> bytes:
    """Property lines of a MOL block that say nonsense."""
    more = chance.choice(
        (b"M  CHG  8   1  99", b"M  CHG  1 999   1", b"M  RAD  1   1   3", b"M  ISO  1   1 -99",
        b"M  STY  1   1 SUP", b"M  XXX",
         b"M  RGP  1   1   1", b"M  ALS   1  2 F C   N", b"M  V30 BEGIN CTAB", b"M  CHG  1   1 127")
    )  # fmt: skip
    return data.replace(b"M  END", more + b"\nM  END", 1)


SDF: dict[str, Mutation] = {f.__name__: f for f in (counts_line, properties)}


def smiles(_: bytes, chance: random.Random) -> bytes:
    """Texts that are hard on a parser of SMILES."""
    n = chance.choice((10, 300, 5000))
    return chance.choice(
        (
            b"C" * n, b"(" * n, b"C(" * n + b")" * n, b"C1" * n, b"C%99" * n, b"." * n, b"[" * n, b"C." * n,
            b"c1ccccc1" * n,
            b"[C@@H]" * n, b"[13C]", b"[999C]", b"[C+99]", b"[C-20]", b"[H]", b"[He]", b"*", b"[*:1]", b"[Og]",
            b"[D]", b"[2H]O[2H]",
            b"C=C=C=C", b"C#C#C", b"F[Xe]F", b"C1CC", b"CC(", b"C/C=C/C=C\\C", b"[Na+].[Cl-]", b"C~C", b"C$C",
            b"C->N", b"[U]",
            b"N(=O)(=O)C", b"c1cccc1", b"[nH]1cccc1", b"C[C@](F)(Cl)(Br)I", b"C1CC1" * 60, b"[CH3]", b"[CH2]",
            b"[O]", b"O=O", b"[H][H]",
            b"C12C3C4C1C5C2C3C45", b"[#6]", b"[C:999999999999]", b"C%(100)CC%(100)", b"C1CCCCC1" * 30, b"|$;$|",
            b"C |^1:0|",
            b"[Fe]123456789", b"[B-]", b"[H+]", b"[OH-].[H+]", b"C" * 100 + b"=" * 100, b"S(=O)(=O)(=O)=O",
            b"[Pt](Cl)(Cl)(N)N",
        )
    )  # fmt: skip


SMILES: dict[str, Mutation] = {"smiles": smiles}


def lists(data: bytes, chance: random.Random) -> bytes:
    """Lines of a list, of which some are none."""
    lines = _lines(data)
    for _ in range(3):
        lines.insert(chance.randrange(len(lines) + 1), smiles(b"", chance) + b" bad\n")
    return b"".join(lines)


LIST: dict[str, Mutation] = {"lists": lists}


# ---------------------------------------------------------------- JSON, TOML


VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, 10**400, "", "x", [], {}, [[]], {"": {}}, [None], [1, "a"], "\x00", "../..",
    float("nan"), 2**63, -0.5,
    "C" * 3000,
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, item in inside for p in _places(item, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(copy[path[0]], path[1:], new)
    return copy


def values(data: bytes, chance: random.Random) -> bytes:
    """Values of JSON become others."""
    content = json.loads(data)
    for _ in range(chance.choice((1, 1, 4))):
        content = _with(content, chance.choice(_places(content)), chance.choice(VALUES))
    return json.dumps(content).encode()


def keys_lost(data: bytes, chance: random.Random) -> bytes:
    content = json.loads(data)
    parents = [p for p in _places(content) if p]
    if not parents:
        return data
    path = chance.choice(parents)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    return json.dumps(content).encode()


def nested(_: bytes, chance: random.Random) -> bytes:
    n = chance.choice((100, 100_000))
    return chance.choice((b"[" * n + b"]" * n, b'{"a":' * n + b"1" + b"}" * n, b"[" * n))


JSON: dict[str, Mutation] = {f.__name__: f for f in (values, keys_lost, nested)}


def tables(data: bytes, chance: random.Random) -> bytes:
    """Settings nobody has, of kinds nobody expects."""
    more = chance.choice(
        (b"[training]\nsteps = 1e308\n", b"training = 3\n", b"[training]\nbetas = 1\n",
        b"[model]\nx = " + b"[" * 2000 + b"]" * 2000,
         b"[training]\nseed = 99999999999999999999999\n", b"[training]\nlearning_rate = nan\n",
         b"[training]\nsteps = inf\n",
         b"[training.training]\n", b"[training]\nsteps = 1979-05-27\n", b'[training]\noptimizer = "sgd"\n',
         b"a.b.c.d.e = 1\n",
         b"[model]\n" + b".".join([b"a"] * 3000) + b" = 1\n", b"[training]\nbetas = [0.9, inf]\n",
         b'[model]\nnetwork = ["pose"]\n')
    )  # fmt: skip
    return chance.choice((more, data + more, more + data))


TOML: dict[str, Mutation] = {"tables": tables}


# ---------------------------------------------------------------- parquet, safetensors, pickles, archives


def _table(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def _parquet(data: bytes) -> pyarrow.Table:
    return pyarrow.parquet.read_table(io.BytesIO(data))


def columns_retyped(data: bytes, chance: random.Random) -> bytes:
    """A column holds values of another type."""
    table = _parquet(data)
    name, n = chance.choice(table.column_names), table.num_rows
    new = chance.choice(
        (
            lambda: pyarrow.array([None] * n), lambda: pyarrow.array(list(range(n))),
            lambda: pyarrow.array([1e308] * n),
            lambda: pyarrow.array(["x"] * n), lambda: pyarrow.array([b"\xff\x00"] * n, pyarrow.binary()),
            lambda: pyarrow.array([[1, 2]] * n), lambda: pyarrow.array([{"a": 1}] * n),
            lambda: pyarrow.array([True] * n),
            lambda: pyarrow.array([float("nan")] * n), lambda: pyarrow.array([["x", None]] * n),
            lambda: pyarrow.array([[]] * n),
            lambda: pyarrow.array([10**6] * n, pyarrow.timestamp("us")),
        )
    )()  # fmt: skip
    meta = table.schema.metadata
    return _table(table.set_column(table.column_names.index(name), name, new).replace_schema_metadata(meta))


def columns_lost(data: bytes, chance: random.Random) -> bytes:
    table = _parquet(data)
    return _table(
        table.drop_columns(chance.sample(table.column_names, chance.choice((1, 1, len(table.column_names)))))
    )


def columns_renamed(data: bytes, chance: random.Random) -> bytes:
    table = _parquet(data)
    names = list(table.column_names)
    names[chance.randrange(len(names))] = chance.choice((*names, "", "\x00", "cif", "id"))
    return _table(table.rename_columns(names))


def cells_replaced(data: bytes, chance: random.Random) -> bytes:
    """Values of the right type say nonsense: wrong lengths, NaN, nothing."""
    table = _parquet(data)
    name = chance.choice(table.column_names)
    kind, old = table.schema.field(name).type, table.column(name).to_pylist()
    row = chance.randrange(len(old)) if old else 0
    for new in chance.sample(VALUES, len(VALUES)) if old else ():
        variants: list[Any] = [new]
        if isinstance(old[row], list) and old[row]:
            short = old[row][:-1]
            variants = [new, short, old[row] * 2, [new] * len(old[row]), [*short, new]]
        try:
            column = pyarrow.array([*old[:row], chance.choice(variants), *old[row + 1 :]], kind)
        except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
            continue  # the type has no room for it
        meta = table.schema.metadata
        return _table(
            table.set_column(table.column_names.index(name), name, column).replace_schema_metadata(meta)
        )
    return data


def rows_lost(data: bytes, chance: random.Random) -> bytes:
    table = _parquet(data)
    return _table(table.slice(0, chance.choice((0, max(0, table.num_rows - 1)))))


def about_changed(data: bytes, chance: random.Random) -> bytes:
    """The JSON in the metadata."""
    table = _parquet(data)
    new = chance.choice(
        (b"", b"[]", b"null", b"{}", b"[" * 5000, b'{"split": 3}', b'{"split": "../x"}', b"\xff", b"NaN")
    )
    return _table(table.replace_schema_metadata({"nucleate": new}))


PARQUET: dict[str, Mutation] = {
    f.__name__: f
    for f in (columns_retyped, columns_lost, columns_renamed, cells_replaced, rows_lost, about_changed)
}


def _split_tensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    [length] = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _join_tensors(header: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def header_length(data: bytes, chance: random.Random) -> bytes:
    return struct.pack("<Q", chance.choice((0, 1, 2**63, 2**64 - 1, 10**8, len(data)))) + data[8:]


def header_changed(data: bytes, chance: random.Random) -> bytes:
    """Names, types, shapes and places of tensors, or the description."""
    header, body = _split_tensors(data)
    return _join_tensors(values(json.dumps(header).encode(), chance), body)


def tensors_retyped(data: bytes, chance: random.Random) -> bytes:
    """Types of equal width: the numbers mean something else."""
    header, body = _split_tensors(data)
    wide = {
        "F32": ("I32", "U32"),
        "F64": ("I64", "U64"),
        "I64": ("F64", "U64"),
        "I32": ("F32",),
        "U8": ("BOOL", "I8"),
    }
    names = [name for name in header if name != "__metadata__"]
    for name in chance.sample(names, min(len(names), chance.choice((1, 3)))):
        header[name]["dtype"] = chance.choice(wide.get(header[name]["dtype"], ("F32",)))
    return _join_tensors(json.dumps(header).encode(), body)


def shapes_changed(data: bytes, chance: random.Random) -> bytes:
    header, body = _split_tensors(data)
    name = chance.choice([name for name in header if name != "__metadata__"])
    size = int(np.prod(header[name]["shape"], dtype=object))
    header[name]["shape"] = chance.choice(([size], [1, size], [size, 1], [0], [], [2**40, 2**40], [-1]))
    return _join_tensors(json.dumps(header).encode(), body)


def tensors_lost(data: bytes, chance: random.Random) -> bytes:
    """A name is another one."""
    header, body = _split_tensors(data)
    name = chance.choice([name for name in header if name != "__metadata__"])
    renamed = {("x" if key == name else key): value for key, value in header.items()}
    return _join_tensors(json.dumps(renamed).encode(), body)


def said_changed(data: bytes, chance: random.Random) -> bytes:
    """The description, of valid JSON inside."""
    header, body = _split_tensors(data)
    about = header.get("__metadata__", {}).get("nucleate", "{}").encode()
    changed = chance.choice((values, keys_lost, nested, truncated))(about, chance)
    header["__metadata__"] = {"nucleate": changed.decode("utf-8", "replace")}
    return _join_tensors(json.dumps(header).encode(), body)


def not_numbers(data: bytes, chance: random.Random) -> bytes:
    """The tensors are NaN, or noise."""
    header, body = _split_tensors(data)
    fill = chance.choice((b"\xff", b"\x7f", b"\x00"))
    return _join_tensors(json.dumps(header).encode(), fill * len(body))


SAFETENSORS: dict[str, Mutation] = {
    f.__name__: f
    for f in (
        header_length, header_changed, tensors_retyped, shapes_changed, tensors_lost, said_changed, not_numbers,
    )
}  # fmt: skip


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a pickle was run",)


def pickled(_: bytes, chance: random.Random) -> bytes:
    """Pickles of what is no molecule, and one that would call a function."""
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    content = chance.choice(
        (_Evil(), deep, {"conformers": [1, None, {"rd_mol": 3}]}, {"conformers": 5}, [1] * 1000, None,
        {1: {2: [3]}}, 10**400, np.zeros(3),
         np.array(["a"]), {"conformers": [{"rd_mol": None}]}, {"x": np.float64("nan")})
    )  # fmt: skip
    return pickle.dumps(content, protocol=chance.choice((0, 2, 4, 5)))


def pickle_sizes(_: bytes, chance: random.Random) -> bytes:
    """Opcodes that announce more than there is."""
    return chance.choice(
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**60), b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x",
        b"\x80\x04B\xff\xff\xff\x7f",
         b"(" * 100_000, b"\x80\x04]" + b"\x94h\x00a" * 3, b"r\xff\xff\xff\x7f.", b"\x80\x04Nr\xff\xff\xff\x7f.",
         b"\x80\xff.", b"cos\nsystem\n.")
    )  # fmt: skip


PICKLE: dict[str, Mutation] = {f.__name__: f for f in (pickled, pickle_sizes)}


def bomb(_: bytes, chance: random.Random) -> bytes:
    """A little file that unpacks to 300 MB."""
    sink = io.BytesIO()
    if chance.random() < 0.5:
        with gzip.GzipFile(fileobj=sink, mode="wb", mtime=0) as file:
            for _ in range(300):
                file.write(b" " * 1_000_000)
    else:
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
            for _ in range(300):
                file.write(b" " * 1_000_000)
    return sink.getvalue()


BOMB: dict[str, Mutation] = {"bomb": bomb}

OF: dict[str, dict[str, Mutation]] = {
    "cif": ANY | TEXT | CIF,
    "xyz": ANY | TEXT | XYZ,
    "sdf": ANY | TEXT | SDF,
    "smiles": SMILES | TEXT | {"truncated": truncated, "noise": noise, "nothing": nothing},
    "list": ANY | TEXT | LIST,
    "csv": ANY | TEXT,
    "json": ANY | TEXT | JSON,
    "toml": ANY | TEXT | TOML,
    "parquet": ANY | PARQUET,
    "safetensors": ANY | SAFETENSORS,
    "pickle": ANY | PICKLE,
    "text": ANY | TEXT,
}
"""Mutations by format."""


def hostile(data: bytes, kind: str, seed: int, name: str | None = None) -> tuple[str, bytes]:
    """The mutation of that name, or any of the format, now and then two of them; its name and what it made."""
    chance = random.Random(f"{kind} {seed}")
    tables = OF[kind] | BOMB
    names = list(OF[kind])
    chosen = [name or chance.choice(names)]
    if name is None and chance.random() < 0.25:
        chosen.append(chance.choice([n for n in (ANY | TEXT) if n in OF[kind]] or names))
    for one in chosen:
        try:
            data = tables[one](data, chance)
        except (
            ValueError,
            struct.error,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            RecursionError,
            pyarrow.ArrowException,
        ):
            continue  # the first mutation left nothing that the second could work on
    return "+".join(chosen), data
