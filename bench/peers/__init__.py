"""What the product is measured beside: small, ours, and started by the benchmarks themselves."""
