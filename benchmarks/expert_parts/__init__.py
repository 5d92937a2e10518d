"""What benchmarks/expert_script.py compares with: scripts by TRL and Transformers."""
