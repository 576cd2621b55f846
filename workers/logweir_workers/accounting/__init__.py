"""Who writes the ledger."""
