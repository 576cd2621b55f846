"""The commands of what is behind the queue, one file each."""
