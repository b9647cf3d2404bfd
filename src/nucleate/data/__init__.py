"""One file per data set or source.

| file | what |
|---|---|
| `predictions/` | readers of what generators of crystals write, ours and others' |
| `packed` | rigid-molecule crystals as rows of parquet shards |
| `space_groups` | how often organic molecules choose each space group |
"""
