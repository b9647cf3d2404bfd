"""Energies of crystals and how to lower them. eV, Å; one adapter per potential, imported lazily.

| file | what |
|---|---|
| `parameters` | exp-6 parameters, radii, atom types, each with its source |
| `charges`, `esp` | MMFF94 charges (RDKit); charges fitted to the electrostatic potential (pyscf) |
| `kernels` | the mathematics of the rigid-molecule lattice energy, compiled: images, pairs, Ewald sums |
| `forcefield` | the built-in force field: parameters and charges of a molecule, energies of a batch |
| `minimise` | rigid-body and cell minimisation inside a space group; press |
"""
