"""Fused operations: one op a file, its plain PyTorch reference beside it with the same signature.

Triton runs them on CUDA tensors where Triton is installed (each op's kernels are in a file named
`*_triton.py`, imported when they are first needed); torch alone runs them everywhere else.
"""
