"""Megatron's checkpoints <-> Hugging Face folders.

`names` is the dictionary of both forms' tensors, one table for both directions; `architecture` is
what their settings are read into (`megatron_settings`, `hf_config`), `refused` what cannot be.
`to_hugging_face` and `to_megatron` put the parts together in the order in which they run.
"""
