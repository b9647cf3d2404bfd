"""Numbers with their denominators: is it the same crystal, how often, how surely.

| file | what |
|---|---|
| `rate` | `Rate`: hits out of asked, with an interval |
| `criteria` | named criteria of "the same packing": strict15, strict20, strict30, ladder, loose |
| `packing` | the comparison they rest on: molecules matched, RMSD in Å, the motion |
| `heavy_molecules` `coordination` `packing_starts` `packing_kernels` | its parts, in this order |
| `structure_matcher` | pymatgen's StructureMatcher under named settings, in timed worker processes |
| `fingerprint` | numbers that hardly change when the crystal hardly does |
| `duplicates` (`packing_pairs`) | transitive clusters of equal crystals, for tens of thousands |
| `control` | random poses in the true cell: what every metric must be compared with |
| `evaluation` | scores of judged samples |
| `clashes` `volume` | contacts between molecules; volume and density errors |
| `pxrd` `powder_similarity` | powder patterns and how alike they are, the cell fixed or free |
| `inorganic_validity` | could it be a crystal without molecules: distances, odd cells, charges that balance |
| `csp` `dng` | such crystals asked for by their contents (match rate, METRe), and from nothing (unique, novel) |
| `clusters` (`cluster_assignment` `cluster_evaluation`) | predicted clusters against true ones |
| `conformers` (`conformer_rmsd` `distance_mmd` `conformer_evaluation`) | conformers: COV, MAT, energies, distances |
| `surroundings` | shortest distances of an inorganic crystal, and which crystals are surely alike |
| `free_energy` | differences from work, of one end or both; effective samples, overlap |
| `multistate` | the same of many temperatures at once: MBAR |
| `radial` | radial distribution functions, weighted |
| `energy_agreement` | two energies of one landscape |
"""
