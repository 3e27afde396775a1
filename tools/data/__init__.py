"""Text in, Megatron's indexed datasets out: the parts that the data tools share."""
