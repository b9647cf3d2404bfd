"""Energies of crystals and how to lower them. eV, Å; one adapter per potential, imported lazily.

| file | what |
|---|---|
| `parameters` | exp-6 parameters, radii, atom types, each with its source |
| `charges`, `esp` | MMFF94 charges (RDKit); charges fitted to the electrostatic potential (pyscf) |
| `kernels` | the mathematics of the rigid-molecule lattice energy, compiled: images, pairs, Ewald sums |
| `forcefield` | the built-in force field: parameters and charges of a molecule, energies of a batch |
| `minimise` | rigid-body and cell minimisation inside a space group; press |
| `energy` | `EnergyModel`, its capability record, and all models by name (`ENERGY_MODELS`) |
| `process`, `worker` | a model in a process of its own, with a time limit: our end, the far end |
| `xtb`, `chgnet`, `adapters`, `ase_model` | GFN-xTB; CHGNet + D3; MACE, Orb, UMA, AIMNet2; any ASE calculator |
| `calculators` | the ASE calculators of these models, built inside the worker |
| `self_test` | does a model obey the laws of an energy? |
| `open_cluster` | energy and relaxation of rigid molecules in open space |
| `molecule_energy` | one molecule in open space: MMFF94 minima of many conformers, GFN2-xTB energies, minima and gaps |
| `rigid_sites`, `pair_potentials` | rigid molecules of charged sites in a fixed cell (water, a user's), in batches |
| `rigid_minimum` | their nearest minimum |
| `molecular_dynamics`, `rigid_sampler` | their samples at a temperature: OpenMM; Hamiltonian Monte Carlo of our own |
| `harmonic_crystal`, `tetrahedron` | systems whose free energies and samples are known exactly |
| `relax_atoms` | all-atom relaxation with molecules and cell free, and the look at the bonds afterwards |
"""
