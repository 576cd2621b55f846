"""The ledger's figures for Prometheus."""
