"""Numbers with their denominators: is it the same crystal, how often, how surely.

| file | what |
|---|---|
| `rate` | `Rate`: hits out of asked, with an interval |
| `packing` | the 15-molecule comparison of two crystals: molecules matched, RMSD in Å |
| `structure_matcher` | pymatgen's StructureMatcher under named settings, in timed worker processes |
| `pxrd` | powder diffraction patterns |
"""
