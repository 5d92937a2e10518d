"""LoRA adapters: read, combined exactly, written, merged into their base."""
