"""A boosted folder in vLLM: expert and amateur as one model whose logits are the contrasted ones.

vLLM finds :func:`springback.integrations.vllm.plugin.register` by its entry point.  Nothing here is
imported by the rest of springback, and vLLM need not be installed.
"""
