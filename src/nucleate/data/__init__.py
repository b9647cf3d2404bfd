"""One file per data set or source.

| file | what |
|---|---|
| `space_groups` | how often organic molecules choose each space group |
"""
