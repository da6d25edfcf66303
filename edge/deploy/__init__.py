"""``python -m edge.deploy --board rpi5``: from a pretrained model to verified jobs on a board."""
