"""What carries the bytes: serial ports, sockets, pseudo-terminals."""
