"""The molecule as an inline SVG, and space-group symbols as they are printed."""

import re
from functools import cache
from typing import Any

import gemmi
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

SUBSCRIPTS = str.maketrans("123456", "₁₂₃₄₅₆")
OVERLINE = "\u0305"


def molecule_svg(smiles: str, width: int = 300, height: int = 220) -> str | None:
    """Structural formula as an `<svg>` element without addresses; None if RDKit cannot read the SMILES.

    Black becomes the colour of the surrounding text and the colours of elements are mixed with it, so that
    the drawing follows light and dark pages.
    """
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() == 0:
        return None
    rdDepictor.Compute2DCoords(molecule)
    canvas = rdMolDraw2D.MolDraw2DSVG(width, height)
    options: Any = canvas.drawOptions()  # its stubs know no types of the fields
    options.clearBackground = False
    options.padding = 0.06
    options.bondLineWidth = 1.6
    options.fixedBondLength = 34
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule)
    canvas.FinishDrawing()
    return _inline(canvas.GetDrawingText(), width, height)


@cache
def space_group_symbol(number: int, symbol: str | None = None) -> str:
    """Hermann-Mauguin symbol in print, such as P2₁/c; `symbol` chooses a setting, else the standard one."""
    entry = gemmi.find_spacegroup_by_name(symbol) if symbol else None
    if entry is None or entry.number != number:
        entry = gemmi.find_spacegroup_by_number(number) if 1 <= number <= 230 else None
    if entry is None:
        return symbol or "?"
    words = entry.hm.split()
    if len(words) == 4 and words[1] == words[3] == "1":  # P 1 21/c 1 with unique axis b is written P 21/c
        words = [words[0], words[2]]
    return words[0] + "".join(_printed(word) for word in words[1:])


def _printed(word: str) -> str:
    """One axis of a symbol: screw axes with a subscript, rotoinversions with a bar."""
    word = re.sub(r"^([2346])([1-5])", lambda m: m[1] + m[2].translate(SUBSCRIPTS), word)
    return re.sub(r"^-(\d)", lambda m: m[1] + OVERLINE, word)


def _inline(drawing: str, width: int, height: int) -> str:
    """Keep the shapes, drop the XML header, namespaces and comments, and scale with the page."""
    shapes = drawing[drawing.index(">", drawing.index("<svg")) + 1 : drawing.rindex("</svg>")]
    shapes = re.sub(r"<!--.*?-->|\s+class='[^']*'", "", shapes, flags=re.DOTALL)
    shapes = shapes.replace("#000000", "currentColor")
    shapes = re.sub(r"#[0-9A-F]{6}", r"color-mix(in srgb,\g<0> 65%,currentColor)", shapes)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Structural formula">{shapes}</svg>'
