"""The things that flow through nucleate: molecules, crystals, batches. Å, fractional coordinates, rows a,
b, c.

| file | what |
|---|---|
| `molecule` | `Molecule`: graph with charges and stereo, conformers, automorphisms |
| `crystal` | `Crystal`: all atoms of one cell, whole molecules |
| `sites` | `Sites`: a cell and its atoms, where there are no molecules |
| `formula` | TiO2 -> atoms of each element |
| `packing` | `Packings`: rigid molecules, batched over crystals of one composition and space group |
| `cluster_xyz` | clusters of copies of one molecule as extended XYZ, and their trajectories |
| `cluster_poses` | clusters as rigid bodies: one shape, a centroid and a frame for each copy |
| `shapes` | symmetries, anchors and hydrogen bonds of molecules known by their atoms alone |
| `open_space` | molecules without a cell, asked as if they had one |
| `perceive` | bonds and whole molecules from bare coordinates |
| `lewis` | bond orders and formal charges by an integer program |
| `graph` | RDKit graphs, skeletons and their canonical order |
| `assemble` | bare atoms in a cell -> `Crystal` |
| `rigid` | `Crystal` -> `Packings`: molecules matched to reference conformers |
| `standardise` | primitive Niggli cell, space group, Z and Z' |
| `batch` | many crystals as flat tensors |
| `cif_read`, `cif_write` | CIF in any setting -> `Crystal`; `Crystal` -> symmetric CIF |
| `sites_cif` | `Sites` -> symmetric CIF |
| `io` | readers and writers by file type: SMILES, SDF, XYZ, extxyz, CIF |
"""

import logging

# moyo warns of operations that do not map a supercell onto itself, which is expected here and dealt with: a handler
# that does nothing keeps Python from printing that to stderr, and leaves it to programs that set up logging
logging.getLogger("moyo").addHandler(logging.NullHandler())
