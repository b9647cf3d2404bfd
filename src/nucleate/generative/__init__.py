"""From noise to data: paths, couplings and samplers; and the training of anything that has a loss.

| file | what |
|---|---|
| `flow_matching` | laws of training times, geodesic paths and velocities, errors, Euler and Heun |
| `coupling` | which noise goes to which data: optimal transport over equal bodies of a crystal |
| `diffusion` | Gaussian paths (straight, variance exploding, preserving), their scores, the reverse SDE |
| `score_matching` | noise in levels, denoising, annealed Langevin dynamics |
| `sphere_maps` `circle_maps` `line_maps` | invertible maps of spheres, circles and lines, with their volumes |
| `normalizing_flow` | layers made of them, for all rigid bodies of a crystal at once |
| `training` | the loop: batches in, averaged weights out, exact resume |
| `epochs` `seeds` `gradient` `average` `team` | its parts: order, chance, clipping, EMA, processes |
| `checkpoint` `training_log` | what it writes |
| `train_settings` `system` `interruption` | its settings, what it trains, how it stops |
"""
