"""Everything that is read from disks and networks, and written: whole or not at all."""
