"""Prints the marshalled byte code of the functions in sources.json, as the Python that runs this stores it.

for python in python2.7 python3.6 ... python3.13; do $python dump.py > $python.json; done
"""

import base64
import json
import marshal
import os

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "sources.json")) as file:
    sources = json.load(file)
codes = {}
for name in sources:
    scope = {}  # type: ignore[var-annotated]  # Python 2 reads this file too.
    exec(sources[name], scope)
    codes[name] = base64.b64encode(marshal.dumps(scope["f"].__code__)).decode("ascii")
print(json.dumps(codes, indent=1, sort_keys=True))
