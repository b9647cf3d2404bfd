"""One file per data set or source.

| file | what |
|---|---|
| `predictions/` | readers of what generators of crystals write, ours and others' |
| `conformers`, `conformer_sources` | conformers with energies and weights as rows of shards; those of other programs |
| `safe_pickle` | pickles of others, read without running them |
| `rigid_frames`, `ice` | frames of a crystal of rigid molecules at a temperature; where ice XI begins |
| `clusters`, `cluster_files` | loose and ordered clusters as rows of shards |
| `poses` | crystals as batches of rigid molecules in their space groups |
| `shard_files` | parquet files that say how they were made, for every kind of record |
| `packed` | rigid-molecule crystals as rows of parquet shards |
| `inorganic` | tables of inorganic crystals as tensors; volumes of elements |
| `molecule_features` | the 18 features of a molecule that MolCrystalFlow tells its network |
| `space_groups` | how often organic molecules choose each space group |
| `splits` | what may be learnt from, and what is kept to measure, by molecule |
| `whole_cells` | packed crystals as all molecules of the primitive cell, and the operations that tie them |
"""
