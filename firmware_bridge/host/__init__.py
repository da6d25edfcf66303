"""The host's end of the bridge without I/O, clock or threads: sessions, requests, uploads and jobs of one device."""
