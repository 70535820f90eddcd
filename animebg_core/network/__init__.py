"""The networks: their designs as tables, their weights, and the checkpoints that hold them."""
