"""What the README's claims are measured with; see benchmarks/README.md."""
