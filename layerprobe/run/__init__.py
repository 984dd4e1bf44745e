"""One run: what it was asked for, its inputs row by row, its engine, its journal, and the loop over them."""
