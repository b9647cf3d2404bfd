"""Mathematics on tensors: rotations, the torus, lattices, symmetry. Knows no chemistry.

| file | what |
|---|---|
| `so3` | rotations: exp, log, random, quaternions, Kabsch |
| `torus` | fractional coordinates |
| `lattice` | cells: parameters, strain, log-Euclidean coordinates, Niggli reduction |
| `symmetry` | the 230 space groups and their operations |
| `manifold` | the interface these share |
"""
