"""What an audit's measurements say: curves, findings, protections, rates."""
