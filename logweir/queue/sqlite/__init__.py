"""The embedded queue."""
