"""Weight files: safetensors, folders, streams of tensors, resume after a kill."""
