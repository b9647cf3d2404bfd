"""One file per system, read top to bottom: represent -> predict -> build.

| file | what |
|---|---|
| `molcrystalflow` | rigid molecules in a space group: flow matching over cell, centroids and rotations |
| `molcrystalflow_training` | what `nucleate train molcrystalflow` does with a folder of crystals |
| `molcrystalflow_whole_cell` | the published network: whole cells, in P1 or exactly symmetric |
| `molcrystalflow_whole_cell_training` | its settings, its lesson and what it is measured by |
| `crystalflow` | inorganic crystals: cell, coordinates and kinds of atoms, with conditions |
| `crystalflow_training` | what `nucleate train crystalflow` does with a table |
| `crystallization` | what methods share that put loose clusters of molecules in order |
| `crystallization_published` | the published methods: PaiNN on all atoms, with and without noise |
| `crystallization_rigid` | ours: a flow of rigid molecules, dealt to their nearest goals |
| `cluster_relax` | molecules of a cluster pushed apart until none overlaps |
| `crystallization_training` | what `nucleate train crystallization` does with clusters |
| `conformers` | what generators of conformers share |
| `confgf` | ConfGF as published, and its ablation on distances |
| `conformer_flow` | ours: positions from springs along the bonds |
| `conformer_training` | what `nucleate train confgf` does with conformers |
| `whole_cell_packings` | new packings of molecules in a group from it |
| `rigid_body_flow` | crystals of rigid molecules from one temperature to another: free energies |
| `rigid_body_flow_published` | the same as published |
| `rigid_body_flow_training` | what `nucleate train rigid_body_flow` does with frames |
"""
