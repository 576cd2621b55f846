"""The keys that emitters send: their file, their terms, their use."""
