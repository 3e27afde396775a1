"""The routing methods that ReMoE is compared with, behind one choice: `--moe-routing`.

`methods` says which options make each one; those that Megatron does not have are routers here, in
its router slot, around the pure functions of `remoe.baselines`. docs/baselines.md compares them.
"""
