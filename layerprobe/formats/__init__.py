"""Where activations go: each file holds one format's writer and reader.

`schema.py` says what every output holds and how layers are named inside, `rows.py` lays the layers out,
`placement.py` brings files into being, `reading.py` opens them lazily, `opening.py` tells the formats apart.
"""
