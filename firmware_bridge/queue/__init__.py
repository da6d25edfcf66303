"""The host's job queue: what is to be done, who does it, what came of it; durable before anything is promised."""
