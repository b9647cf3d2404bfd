"""The verbs: plain functions with a settings object beside them; the command line only parses and calls.

| file | what |
|---|---|
| `predict`, `predict_list` | the main job: a molecule (or a list of them) -> ranked crystals in a folder |
| `composition`, `conform` | what the user gave -> species with conformers |
| `conformer_shapes`, `learned_conformers` | shapes of a molecule: by ETKDG, from a learned model |
| `ensemble`, `conform_files` | shapes -> distinct conformers with energies and weights -> SDF, report |
| `generate`, `learned`, `generate_files` | packings in a space group: random, or from learned weights |
| `search` | rounds of units, until the starts are spent |
| `strategy`, `units`, `workers` | where starts go, what one batch of them does, in which process |
| `minima`, `convergence` | what is known so far, and whether it is enough |
| `deduplicate`, `candidates` | distinct minima -> distinct crystals with symmetry |
| `rank`, `relax` | energies by any model, relaxation |
| `reference` | was a known crystal found? |
| `landscape`, `run_record`, `folders` | the result folder |
| `provenance` | what every record says of the program |
| `crystal_files` | relax and rank CIF files |
| `crystallize`, `cluster_sources`, `cluster_samples` | a loose cluster, whatever it is made of -> ordered clusters |
| `cluster_cell`, `cluster_translations` | the lattice that an ordered cluster is a piece of |
| `claims` | whose samples a folder holds, for those that are gone on with |
| `samples`, `match`, `evaluate`, `deduplicate_files` | crystals of any program: compared, judged, grouped |
| `conformer_baselines` | conformers of RDKit and of chance, to be compared with |
| `evaluate_inorganic` | crystals without molecules, asked for by their contents or from nothing |
| `rigid_crystal` | a CIF -> rigid molecules in the built-in force field, at rest |
| `free_energy`, `free_energy_record` | a crystal at one temperature against another; what its report draws |
| `temperature_ladder` | frames at a ladder of temperatures |
| `train` | a system by name on a data set -> weights |
| `synthesize`, `import_crystals`, `data_statistics` | data sets: made by search, read from CIF files, in numbers |
| `conformer_data`, `conformer_import`, `conformer_shards` | data sets of conformers: computed, converted; their files |
| `molecule_lists` | lists of molecules, and molecules that are kept out |
| `jobs` | many jobs in processes of their own; `*_worker` are their programs |
"""
