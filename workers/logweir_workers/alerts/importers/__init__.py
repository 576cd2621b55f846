"""Rules of other products, written down as rules of logweir: files that people read, change and own afterwards."""
