"""Tensors in, tensors out; networks know no data set and no file.

| file | what |
|---|---|
| `embed` | Gaussians of distances, waves of times and periodic coordinates, standard scores |
| `egnn` | one vector for each molecule, mirror-blind, computed once |
| `molcrystalnet` | the published network of MolCrystalFlow, mended: molecules of the whole cell |
| `atom_pairs` | atoms of many crystals as one list, and all pairs once: waves, shells of distance over images |
| `elements` | the periodic table as an input or as a code to be generated |
| `cspnet` | the published network of CrystalFlow (inorganic), exact and faster |
| `pairnet` | ours: pairs push and pull along the lines that join them |
| `painn` | scalars and vectors on the atoms of a cluster |
| `pose` | contacts between molecules of the asymmetric unit and their images in a space group |
| `gin` | the published network of ConfGF: a number for each pair of atoms near along the bonds |
| `conformer` | where the atoms of a molecule should go; told hands by the faces of stereocentres |
| `cluster_poses` | rigid molecules of a cluster, each seen from every other |
| `lattice_sites` | sites of a crystal, known by their surroundings alone: maps of the whole lattice |
| `site_attention` | the published conditioner of Rigid Body Flows |
"""
