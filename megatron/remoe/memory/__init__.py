"""What a training run will need in memory, and what to do where that is too much.

`shape` says what decides it, `estimate` computes bytes, `advice` the options that make them fit;
`report` prints both before the model is built, `exhausted` when memory ran out all the same.
"""
