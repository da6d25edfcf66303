"""The product: lowering, engine, device supervisor, virtual boards, deploy. Imports nothing by itself."""
