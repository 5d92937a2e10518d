"""What did fine-tuning break: a base and a tuned model side by side."""
