"""Tensors in, tensors out; networks know no data set and no file.

| file | what |
|---|---|
| `embed` | Gaussians of distances, waves of times and periodic coordinates, standard scores |
| `egnn` | one vector for each molecule, mirror-blind, computed once |
| `molcrystalnet` | the published network of MolCrystalFlow, mended: molecules of the whole cell |
| `pose` | contacts between molecules of the asymmetric unit and their images in a space group |
"""
