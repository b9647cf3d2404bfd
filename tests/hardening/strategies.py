"""Hypothesis strategies: hostile files of a reader, hostile texts."""

from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.hardening.mutations import OF, hostile
from tests.hardening.readers import READERS, good_file

DATA = Path(__file__).parents[1] / "data"
CRYSTALS = (DATA / "cod_1100989.cif", DATA / "cod_7210454.cif")

few = settings(
    max_examples=3, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
"""The same few examples every time: what is run in quantity is benchmarks/fuzz.py."""


@st.composite
def hostile_files(draw: st.DrawFn, name: str) -> tuple[Path, str, int]:
    """Of a reader: the crystal that a good file is made of, a mutation, and its seed; `build` makes the file."""
    reader = READERS[name]
    cif = CRYSTALS[0] if reader.few else draw(st.sampled_from(CRYSTALS))
    return cif, draw(st.sampled_from(sorted(OF[reader.kind]))), draw(st.integers(0, 10_000))


def build(name: str, cif: Path, mutation: str, seed: int) -> bytes:
    """The content of a hostile file."""
    reader = READERS[name]
    return hostile(good_file(reader.good, cif), reader.kind, seed, mutation)[1]


def hostile_texts(alphabet: str) -> st.SearchStrategy[str]:
    """What may be typed: any text, and texts of the characters that mean something."""
    return st.text(alphabet, max_size=60) | st.text(max_size=40)
