"""One file per system, read top to bottom: represent -> predict -> build.

| file | what |
|---|---|
| `molcrystalflow` | rigid molecules in a space group: flow matching over cell, centroids and rotations |
| `molcrystalflow_training` | what `nucleate train molcrystalflow` does with a folder of crystals |
"""
