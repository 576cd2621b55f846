"""Wire formats of the door, one file each: the bytes of a request body to the raw bytes of each event."""
