"""Where activations go: each format is a file with its writer and its reader, and its lines in `registry.py`.

What a writer is made of depends on how rows come to their places:

- each has its place from the beginning: `laid_out.py` (HDF5, npz, safetensors, in one file; npy, a folder);
- each waits at a place of its own, uncompressed, until the file is made of all: `waiting.py` (Parquet; Zarr
  does so shard by shard);
- they have no places, for they are compressed, or nobody knows how many come: they wait in a spool,
  `spool.py`, of which `spooled.py` makes the file (compressed HDF5, and every format of a stream);
- they stand one after the other: `StreamWriter` in `writing.py`, into one of `sinks.py` (jsonl, tar), and
  `piping.py` for pipes.

`schema.py` says what every output holds and how layers are named inside, `rows.py` turns blocks of rows
into bytes and checksums, `placement.py` says what files are called until they are complete, and
`pending.py` brings them into being. `reading.py` opens outputs lazily, `lazy_rows.py` reads what cannot be
mapped, `opening.py` tells the formats apart, `remote.py` and `ranged.py` read from stores.
"""
